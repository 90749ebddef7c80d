"""Milvus: addresses, the connection, what its errors mean, how a gallery lies in it, and filters.

A gallery is one collection for each space, all with the same items under the same ids, which are content
digests. An alias is its name: when another student's collections are complete, it points to them.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from index.errors import RetrievalError, UnreachableError, UsageError, needs
from index.io import content_digest
from index.stores.filters import Filter
from index.stores.metadata.columns import BOUND, ORDERED, read_bound, sort_keys
from index.stores.records import Item, Manifest, Space, as_facts
from index.stores.server import FIELDS, NAMES, PAGE, several
from index.vectors import Vectors

TOKEN = "MILVUS_TOKEN"  # the environment variable  # noqa: S105
SCHEMES = {"milvus": "http", "milvus+https": "https", "http": "http", "https": "https"}
FACTS = "retrieval"  # the property of a collection that has its manifest
METRICS = {"inner_product": "IP", "hamming": "HAMMING"}  # by that of a `VectorType`
TEXT = 65_535  # bytes that a text may have
DIGEST = 32  # digits
SECONDS = 10.0  # that an answer may take, the attempts to reach the server included
# gRPC would look for a server that has been gone for long every two minutes alone.
RECONNECT = {"grpc.max_reconnect_backoff_ms": 5000}
MOST_FILES = 10  # of one item that a prefix is looked for in, and values that are compared with bounds


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


def name_collections(name: str, spaces: Mapping[str, Space]) -> dict[str, str]:
    """What the collections of a gallery's spaces are called, by the keys of the student and of the model."""
    digests = {space: content_digest(made.key.encode())[:8] for space, made in spaces.items()}
    base = f"{name}_{digests['student']}"
    return {space: f"{base}_{space}_{digest}" for space, digest in digests.items()} | {"student": base}


def as_property(manifest: Manifest, columns: Sequence[str]) -> dict[str, str]:
    """What is written beside the vectors, as a property of the student's collection."""
    return {FACTS: json.dumps({"manifest": as_facts(manifest), "columns": list(columns)})}


def create_collection(client: Client, name: str, space: Space, properties: dict[str, str]) -> None:
    """Create a collection for the vectors of a space, with the items as fields."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("digest", DataType.VARCHAR, is_primary=True, max_length=DIGEST)
    kind = DataType.BINARY_VECTOR if space.bits else DataType.FLOAT_VECTOR
    schema.add_field("vector", kind, dim=space.bits or space.dim)
    for text in FIELDS[:2]:
        schema.add_field(text, DataType.VARCHAR, max_length=TEXT)
    for number in FIELDS[2:-1]:
        schema.add_field(number, DataType.INT64)
    schema.add_field(FIELDS[-1], DataType.JSON)  # copies and metadata
    client.create_collection(name, schema=schema, consistency_level="Bounded", properties=properties)


def check_schema(client: Client, name: str, space: Space, compared: str | None = None) -> None:
    """Raise UsageError for a collection that holds other vectors, or is `compared` by another metric."""
    fields = {field["name"]: field for field in client.describe_collection(name)["fields"]}
    if not {"digest", "vector", *FIELDS} <= set(fields):
        raise UsageError(f"Collection {name} was not made by `retrieval index`. Give another --collection.")
    metric, dim = METRICS[space.metric], space.bits or space.dim
    fault = f"compares by {compared}, not {metric}" if compared not in (None, metric) else ""
    if (found := int(fields["vector"]["params"]["dim"])) != dim:
        fault = f"holds vectors of {found}, not {dim}"
    if fault:
        raise UsageError(f"Collection {name} {fault}. Drop it, or give another --collection.")


def read_vectors(space: Space, rows: Iterable[dict[str, Any]]) -> Vectors:
    """The `(n, dim)` vectors of rows: floats, or bytes, which a query puts in lists."""
    values = [row["vector"] for row in rows]
    if space.bits:
        codes = b"".join(value[0] if isinstance(value, list) else value for value in values)
        return np.frombuffer(codes, space.dtype).reshape(-1, space.dim)
    return np.array(values, space.dtype).reshape(-1, space.dim)


def as_row(item: Item, metadata: dict[str, Any]) -> dict[str, Any]:
    """An item as a row, without its vector. Of very many copies it has as many as a field takes."""
    more = describe(metadata)
    room = TEXT - json_size(more) if item.copies else 0
    taken = accumulate(json_size(vars(file)) + 1 for file in item.copies)
    copies = [vars(file) for file, so_far in zip(item.copies, taken, strict=True) if so_far <= room]
    return {name: getattr(item, name) for name in NAMES} | {"more": more | {"copies": copies}}


def describe(metadata: dict[str, Any]) -> dict[str, Any]:
    """What is known of an item as a field: beside its values what bounds are compared with, by kind."""
    more: dict[str, Any] = {"copies": [], "metadata": metadata}
    for kind in ORDERED:
        keys = {name: sort_keys(kind, several(value)[:MOST_FILES]) for name, value in metadata.items()}
        if known := {name: found for name, found in keys.items() if found}:
            more[kind] = known
    return more


def json_size(value: dict[str, Any]) -> int:
    """Bytes of a value as pymilvus sends it, or a few more."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def among(digests: Sequence[str]) -> Iterator[str]:
    """The filters of rows by digest, in pages; a query's own `ids` would take a quote in one for its end."""
    for start in range(0, len(digests), PAGE):
        yield f"digest in {json.dumps(digests[start : start + PAGE])}"


def quote(text: str) -> str:
    """A text in a filter, whatever is in it."""
    if "\0" in text or any(0xD800 <= ord(character) < 0xE000 for character in text):
        raise UsageError(f"{text!r} holds a character that no text should: nothing can be searched for it.")
    return json.dumps(text, ensure_ascii=False)


def as_filter(filter: Filter, columns: Collection[str], finds: Callable[[str], bool]) -> str:
    """What is wanted of `columns`, as the server understands it; `finds` says whether it has such a row."""
    filter.require_columns(columns)
    parts = [_matches(column, value, finds) for column, value in filter.columns.items()]
    if filter.prefix:
        names = ["name", *(f'more["copies"][{i}]["name"]' for i in range(MOST_FILES - 1))]
        parts.append(_any(_starts_with(name, filter.prefix) for name in names))
    return " and ".join(parts)


def _matches(column: str, value: str, finds: Callable[[str], bool]) -> str:
    """What `Column.matches` says, of one file or of several."""
    whole, bounded = _is_one_of(column, [value]), BOUND.match(value)
    if not (bounded or "," in value) or finds(whole):
        return whole
    if not bounded:
        return _is_one_of(column, [part.strip() for part in value.split(",")])
    bounds = [read_bound(column, bound) for bound in value.split("&")]
    return _any(
        " and ".join(f'more["{kind}"][{quote(column)}][{i}] {sign} {limit!r}' for sign, kind, limit in bounds)
        for i in range(MOST_FILES)
    )


def _is_one_of(column: str, values: Sequence[str]) -> str:
    field, wanted = f'more["metadata"][{quote(column)}]', f"[{', '.join(map(quote, values))}]"
    return _any([f"{field} in {wanted}", f"json_contains_any({field}, {wanted})"])


def _any(conditions: Iterable[str]) -> str:
    return f"({' or '.join(f'({condition})' for condition in conditions)})"


def _starts_with(field: str, prefix: str) -> str:
    """A range, not `like`, which has characters of its own: bytes are compared, as UTF-8 keeps the order."""
    last = prefix.rstrip("\U0010ffff")
    if not last:
        return f"{field} >= {quote(prefix)}"
    after = ord(last[-1]) + 1
    end = last[:-1] + chr(0xE000 if 0xD800 <= after < 0xE000 else after)
    return f"{field} >= {quote(prefix)} and {field} < {quote(end)}"
