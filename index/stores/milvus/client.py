"""Milvus: addresses, the connection, what its errors mean, how a gallery lies in it, and filters.

A gallery is one collection for each space, all with the same items under the same ids, which are content
digests. An alias is its name: when another student's collections are complete, it points to them.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from index.errors import RetrievalError, UnreachableError, UsageError, needs
from index.io import content_digest
from index.stores.filters import Filter
from index.stores.records import File, Item

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN = "MILVUS_TOKEN"  # the environment variable  # noqa: S105
SCHEMES = {"milvus": "http", "milvus+https": "https"}
FACTS = "retrieval"  # the property of a collection that has its manifest
METRIC = "IP"
TEXT = 65_535  # bytes that a text may have
DIGEST = 32  # digits
FIELDS = ["path", "name", "size", "width", "height", "mtime", "more"]
SECONDS = 10.0  # that an answer may take, the attempts to reach the server included
# gRPC would look for a server that has been gone for long every two minutes alone.
RECONNECT = {"grpc.max_reconnect_backoff_ms": 5000}
MOST_FILES = 10  # files of one item that a prefix is looked for in


@dataclass(frozen=True)
class Address:
    """Where a gallery is.

    Attributes:
        uri: Of the server, as pymilvus takes it.
        name: Of the gallery: an alias.
    """

    uri: str
    name: str

    def __str__(self) -> str:
        scheme, rest = self.uri.split("://")
        return f"{'milvus' if scheme == 'http' else 'milvus+https'}://{rest}/{self.name}"

    def __post_init__(self) -> None:
        if "@" in self.uri:
            raise UsageError(f"Put no password into an address: set {TOKEN} in the environment.")
        if not _is_server(self.uri):
            raise UsageError(f"{self.uri} is no address of a Milvus server, such as http://HOST:19530.")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", self.name):
            raise UsageError(
                f"A collection's name has letters, digits and _, and no digit first, not {self.name!r}."
            )


def _is_server(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        more = parts.path or parts.query or parts.fragment
        return parts.scheme in SCHEMES.values() and bool(parts.hostname) and parts.port != 0 and not more
    except ValueError:  # a port or an IPv6 address that is none
        return False


def is_address(where: str) -> bool:
    """Whether a name is that of a Milvus collection."""
    return where.split("://", maxsplit=1)[0] in SCHEMES and "://" in where


def parse_address(where: str) -> Address:
    """Read `milvus://HOST:PORT/COLLECTION`, or `milvus+https://...` for a server behind TLS.

    Raises:
        UsageError: It is something else.
    """
    scheme, _, rest = where.partition("://")
    server, slash, name = rest.partition("/")
    if scheme not in SCHEMES or not server or not slash:
        raise UsageError(f"{where} is not of the form milvus://HOST:19530/COLLECTION.")
    return Address(f"{SCHEMES[scheme]}://{server}", name)


def connect(address: Address) -> "MilvusClient":
    """Reach the server; a token is taken from the environment.

    Raises:
        UnreachableError: Nobody answers there.
        UsageError: pymilvus is not installed.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it has to say is in its errors too
    with needs("milvus"):
        from pymilvus import MilvusClient
    # It writes a traceback for each error, besides raising it.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    with explain(address):
        return MilvusClient(
            uri=address.uri, token=os.environ.get(TOKEN, ""), timeout=SECONDS, grpc_options=RECONNECT
        )


@contextmanager
def explain(address: Address) -> Iterator[None]:
    """Turn what the server or the way to it does wrong into one line with the remedy.

    Raises:
        UnreachableError: Nobody answers there.
        RetrievalError: The server cannot do what is asked.
    """
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        reason = " ".join(str(getattr(error, "message", error)).split())
        gone = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "Fail connecting", "Connection refused", "closed channel")
        if any(sign in reason for sign in gone):
            raise UnreachableError(
                f"No Milvus server answers at {address.uri}. Start it, or give another address."
            ) from error
        if "collection not loaded" in reason:
            raise RetrievalError(
                f"The Milvus server at {address.uri} has not loaded the collection: it starts, or builds an "
                "index. If that does not end, run `retrieval index` again."
            ) from error
        raise RetrievalError(f"The Milvus server at {address.uri} says: {reason[:300]}") from error


def collection_name(name: str, student: str, space: str, key: str) -> str:
    """What the collection of a space is called.

    Args:
        name: Of the gallery.
        student: Key of the student.
        space: `student`, `teacher` or `projected`.
        key: Key of what made the vectors.
    """
    base = f"{name}_{content_digest(student.encode())[:8]}"
    return base if space == "student" else f"{base}_{space}_{content_digest(key.encode())[:8]}"


def create_collection(client: "MilvusClient", name: str, dim: int, facts: dict[str, Any]) -> None:
    """Create a collection with the items as fields."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("digest", DataType.VARCHAR, is_primary=True, max_length=DIGEST)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    for text in ("path", "name"):
        schema.add_field(text, DataType.VARCHAR, max_length=TEXT)
    for number in ("size", "width", "height", "mtime"):
        schema.add_field(number, DataType.INT64)
    schema.add_field("more", DataType.JSON)  # copies and metadata
    client.create_collection(
        name, schema=schema, consistency_level="Bounded", properties={FACTS: json.dumps(facts)}
    )


def check_schema(name: str, described: dict[str, Any], dim: int, metric: str | None) -> None:
    """Refuse a collection that does not hold such vectors.

    Raises:
        UsageError: Its fields, its dimension or its metric is another.
    """
    fields = {field["name"]: field for field in described["fields"]}
    if not {"digest", "vector", *FIELDS} <= set(fields):
        raise UsageError(f"Collection {name} was not made by `retrieval index`. Give another --collection.")
    found = int(fields["vector"]["params"]["dim"])
    if found != dim:
        raise UsageError(
            f"Collection {name} holds vectors of {found}, not {dim}. Drop it, or give another --collection."
        )
    if metric not in (None, METRIC):
        raise UsageError(
            f"Collection {name} compares by {metric}, not {METRIC}. Drop it, or give another --collection."
        )


def as_row(item: Item, metadata: dict[str, Any]) -> dict[str, Any]:
    """An item as a row, without its vector. Of very many copies it has as many as a field takes."""
    room = TEXT - json_size({"copies": [], "metadata": metadata}) if item.copies else 0
    copies = []
    for file in item.copies:
        room -= json_size(vars(file)) + 1
        if room < 0:
            break
        copies.append(vars(file))
    return {
        "digest": item.digest,
        **{name: getattr(item, name) for name in FIELDS[:-1]},
        "more": {"copies": copies, "metadata": metadata},
    }


def json_size(value: dict[str, Any]) -> int:
    """Bytes of a value as pymilvus sends it, or a few more."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def as_item(row: dict[str, Any]) -> Item:
    """An item from its row."""
    copies = tuple(File(**copy) for copy in row["more"]["copies"])
    return Item(digest=row["digest"], copies=copies, **{name: row[name] for name in FIELDS[:-1]})


def quote(text: str) -> str:
    """A text in a filter, whatever is in it."""
    if "\0" in text or any(0xD800 <= ord(character) < 0xE000 for character in text):
        raise UsageError(f"{text!r} holds a character that no text should: nothing can be searched for it.")
    return json.dumps(text, ensure_ascii=False)


def any_of(digests: Iterator[str] | list[str]) -> str:
    """The filter for some items."""
    return f"digest in {json.dumps(list(digests))}"


def as_filter(narrow: Filter, columns: list[str]) -> str:
    """What is wanted, as the server understands it; empty wants all.

    Args:
        narrow: What is wanted, but for the cut.
        columns: Those that there are.

    Raises:
        UsageError: There is no such column.
    """
    parts = []
    for column, value in narrow.columns.items():
        if column not in columns:
            known = f"only {', '.join(columns)}" if columns else "none: see index --metadata"
            raise UsageError(f"This index has no column {column!r}, {known}.")
        field, wanted = f'more["metadata"][{quote(column)}]', quote(value)
        parts.append(
            f"({field} == {wanted} or json_contains({field}, {wanted}))"
        )  # of one file, or of several
    if narrow.prefix:
        names = ["name", *(f'more["copies"][{i}]["name"]' for i in range(MOST_FILES - 1))]
        parts.append(f"({' or '.join(_starts_with(name, narrow.prefix) for name in names)})")
    return " and ".join(parts)


def _starts_with(field: str, prefix: str) -> str:
    """A range, not `like`, which has characters of its own: bytes are compared, as UTF-8 keeps the order."""
    last = prefix.rstrip("\U0010ffff")
    if not last:
        return f"{field} >= {quote(prefix)}"
    after = ord(last[-1]) + 1
    end = last[:-1] + chr(0xE000 if 0xD800 <= after < 0xE000 else after)
    return f"({field} >= {quote(prefix)} and {field} < {quote(end)})"
