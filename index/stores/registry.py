"""Open a gallery by name: an index folder, or a Milvus collection."""

from collections.abc import Sequence
from pathlib import Path

from index.errors import UsageError
from index.images.remote import check
from index.stores.base import Store
from index.stores.folder import Index


def open_store(where: str | Path, model: Path | None = None, allowed: Sequence[str] = ()) -> Store:
    """Open a gallery by name.

    Args:
        where: An index folder, or `milvus://HOST:PORT/COLLECTION`.
        model: The student's ONNX file, for a collection that another machine wrote.
        allowed: As in `Store`.

    Raises:
        RetrievalError: There is none, or it cannot be reached.
        UsageError: What is allowed is no address.
    """
    from index.stores.milvus.client import is_address

    for address in allowed:
        check(address)
    if is_address(str(where)):
        from index.stores.milvus.store import open_collection

        return open_collection(str(where), model, allowed)
    if model is not None:
        raise UsageError(f"{where} keeps its student itself. Leave --model out.")
    return Index(Path(where), allowed)
