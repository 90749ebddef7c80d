"""Milvus: addresses, the connection, what its errors mean, how a gallery lies in it, and filters.

A gallery is one collection for each space, all with the same items under the same ids, which are content
digests. An alias is its name: when another student's collections are complete, it points to them.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from urllib.parse import urlsplit

from index.errors import RetrievalError, UnreachableError, UsageError, needs
from index.io import content_digest
from index.stores.filters import Filter
from index.stores.records import File, Item

TOKEN = "MILVUS_TOKEN"  # the environment variable  # noqa: S105
SCHEMES = {"milvus": "http", "milvus+https": "https", "http": "http", "https": "https"}
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
    """Where a gallery is: the server, as pymilvus takes it, and its name there, an alias."""

    uri: str
    name: str

    def __str__(self) -> str:
        scheme, rest = self.uri.split("://")
        return f"{'milvus' if scheme == 'http' else 'milvus+https'}://{rest}/{self.name}"


def is_address(where: str) -> bool:
    """Whether a name is that of a Milvus collection."""
    return where.startswith(("milvus://", "milvus+https://"))


def parse_address(where: str) -> Address:
    """Read `milvus://HOST:PORT/COLLECTION`, or `milvus+https://...` for a server behind TLS."""
    if "@" in where:
        raise UsageError(f"Put no password into an address: set {TOKEN} in the environment.")
    try:
        scheme, server, path, *rest = parts = urlsplit(where)
        if scheme not in SCHEMES or not parts.hostname or parts.port == 0 or any(rest):
            raise ValueError(where)
    except ValueError as error:  # also of a port or an IPv6 address that is none
        raise UsageError(f"{where} is not of the form milvus://HOST:19530/COLLECTION.") from error
    name = path.removeprefix("/")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise UsageError(f"A collection's name has letters, digits and _, and no digit first, not {name!r}.")
    return Address(f"{SCHEMES[scheme]}://{server}", name)


class Client:
    """A `MilvusClient`: what fails in a call of it is one line with the remedy, as `explain` says."""

    def __init__(self, address: Address) -> None:
        """Reach the server; a token is taken from the environment."""
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it has to say is in its errors too
        with needs("milvus"):
            from pymilvus import MilvusClient
        # It writes a traceback for each error, besides raising it.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self.address, token = address, os.environ.get(TOKEN, "")
        with explain(address):
            self.bare = MilvusClient(address.uri, token=token, timeout=SECONDS, grpc_options=RECONNECT)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return explain(self.address)(getattr(self.bare, method))


@contextmanager
def explain(address: Address) -> Iterator[None]:
    """Turn what the server or the way to it does wrong into one line with the remedy."""
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
    """What the collection of a space of a gallery is called, by the keys of the student and of the model."""
    base = f"{name}_{content_digest(student.encode())[:8]}"
    return base if space == "student" else f"{base}_{space}_{content_digest(key.encode())[:8]}"


def create_collection(client: Client, name: str, dim: int, facts: dict[str, Any]) -> None:
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
    properties = {FACTS: json.dumps(facts)}
    client.create_collection(name, schema=schema, consistency_level="Bounded", properties=properties)


def check_schema(client: Client, name: str, dim: int, metric: str | None = METRIC) -> None:
    """Raise UsageError for a collection that holds other vectors, or compares them by another metric."""
    fields = {field["name"]: field for field in client.describe_collection(name)["fields"]}
    if not {"digest", "vector", *FIELDS} <= set(fields):
        raise UsageError(f"Collection {name} was not made by `retrieval index`. Give another --collection.")
    fault = f"compares by {metric}, not {METRIC}" if metric not in (None, METRIC) else ""
    if (found := int(fields["vector"]["params"]["dim"])) != dim:
        fault = f"holds vectors of {found}, not {dim}"
    if fault:
        raise UsageError(f"Collection {name} {fault}. Drop it, or give another --collection.")


def as_row(item: Item, metadata: dict[str, Any]) -> dict[str, Any]:
    """An item as a row, without its vector. Of very many copies it has as many as a field takes."""
    room = TEXT - json_size({"copies": [], "metadata": metadata}) if item.copies else 0
    taken = accumulate(json_size(vars(file)) + 1 for file in item.copies)
    copies = [vars(file) for file, so_far in zip(item.copies, taken, strict=True) if so_far <= room]
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


def as_filter(filter: Filter, columns: Collection[str]) -> str:
    """What is wanted of the `columns` that there are, as the server understands it; empty wants all."""
    filter.require_columns(columns)
    parts = []
    for column, value in filter.columns.items():
        field, wanted = f'more["metadata"][{quote(column)}]', quote(value)
        # Of one file, or of several.
        parts.append(f"({field} == {wanted} or json_contains({field}, {wanted}))")
    if filter.prefix:
        names = ["name", *(f'more["copies"][{i}]["name"]' for i in range(MOST_FILES - 1))]
        parts.append(f"({' or '.join(_starts_with(name, filter.prefix) for name in names)})")
    return " and ".join(parts)


def _starts_with(field: str, prefix: str) -> str:
    """A range, not `like`, which has characters of its own: bytes are compared, as UTF-8 keeps the order."""
    last = prefix.rstrip("\U0010ffff")
    if not last:
        return f"{field} >= {quote(prefix)}"
    after = ord(last[-1]) + 1
    end = last[:-1] + chr(0xE000 if 0xD800 <= after < 0xE000 else after)
    return f"({field} >= {quote(prefix)} and {field} < {quote(end)})"
