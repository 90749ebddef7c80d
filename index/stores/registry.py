"""Open a store by name, to read or to write: an index folder, or a Milvus collection."""

from collections.abc import Sequence
from pathlib import Path

from index.errors import UsageError
from index.images.remote import check
from index.stores.base import Store, StoreWriter
from index.stores.folder import Index
from index.stores.milvus.client import is_address, parse_address


def open_store(where: str | Path, model: Path | None = None, allowed: Sequence[str] = ()) -> Store:
    """Open an index folder, or `milvus://HOST:PORT/COLLECTION`; `allowed` is as in `Store`.

    `model` is the student's ONNX file, for a collection that another machine wrote.

    Raises:
        RetrievalError: There is none, or it cannot be reached.
        UsageError: What is allowed is no address.
    """
    for address in allowed:
        check(address)
    if is_address(str(where)):
        from index.stores.milvus.store import open_collection

        return open_collection(str(where), model, allowed)
    if model is not None:
        raise UsageError(f"{where} keeps its student itself. Leave --model out.")
    return Index(Path(where), allowed)


def open_writer(out: str | None, backend: str, uri: str, collection: str | None) -> StoreWriter:
    """Read where a command line says to write: to a folder, to the address of a collection, or to a backend.

    That is `faiss` or `milvus`, with the server's `uri` and a collection; `out` is then a folder to work in.

    Raises:
        UsageError: It says too little, or two things.
    """
    from index.stores.milvus.writer import MilvusWriter
    from index.stores.writing.store import FolderStore

    if backend not in ("faiss", "milvus"):
        raise UsageError(f"--backend must be faiss or milvus, not {backend!r}.")
    if out and is_address(out):
        if collection:
            raise UsageError(f"--out {out} names a collection. Leave --collection out.")
        return MilvusWriter(parse_address(out))
    if backend == "milvus":
        if not collection:
            raise UsageError("--backend milvus needs a --collection.")
        return MilvusWriter(parse_address(f"{uri.rstrip('/')}/{collection}"), Path(out) if out else None)
    if collection:
        raise UsageError("--collection is for Milvus. Give --backend milvus too.")
    if not out:
        raise UsageError("Give --out, the index folder to write.")
    return FolderStore(Path(out))
