"""Where `retrieval index` writes: an index folder, or a collection of a Milvus server."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from index.build.pipeline import index_by_name
from index.build.ray import open_cluster
from index.errors import UsageError
from index.images.sources import Source
from index.stores.folder import ERRORS
from index.stores.milvus.client import Address, is_address, parse_address
from index.stores.options import AUTO, DEFAULTS, IndexOptions
from index.stores.records import Failure
from index.teachers.spec import TeacherSpec


@dataclass(frozen=True)
class Target:
    """Where to write.

    Attributes:
        folder: The index folder; for a collection a folder to work in, or None to work in the cache folder.
        address: Of the collection; None for an index folder.
    """

    folder: Path | None
    address: Address | None = None

    @property
    def index_folder(self) -> Path | None:
        """The index folder, if it is one that is written."""
        return None if self.address else self.folder

    @classmethod
    def parse(cls, out: str | None, backend: str, uri: str, collection: str | None) -> "Target":
        """Read what a command line says of it.

        Args:
            out: A folder, or the address of a collection.
            backend: `faiss` or `milvus`.
            uri: Of the Milvus server.
            collection: Its collection.

        Raises:
            UsageError: It says too little, or two things.
        """
        if backend not in ("faiss", "milvus"):
            raise UsageError(f"--backend must be faiss or milvus, not {backend!r}.")
        if out and is_address(out):
            if collection:
                raise UsageError(f"--out {out} names a collection. Leave --collection out.")
            return cls(None, parse_address(out))
        if backend == "milvus":
            if not collection:
                raise UsageError("--backend milvus needs a --collection.")
            return cls(Path(out) if out else None, Address(uri.rstrip("/"), collection))
        if collection:
            raise UsageError("--collection is for --backend milvus.")
        if not out:
            raise UsageError("Give --out, the index folder to write.")
        return cls(Path(out))


@dataclass(frozen=True)
class Made:
    """What was written: a line for people, and the images that were refused."""

    summary: str
    failures: list[Failure]


def write_gallery(
    sources: Sequence[Source],
    model: Path,
    target: Target,
    teacher: TeacherSpec,
    device: str,
    options: IndexOptions = DEFAULTS,
    ray: str | None = None,
) -> Made:
    """Index images with the models of these names, into a folder or a collection, here or on a Ray cluster.

    Raises:
        RetrievalError: As `index_by_name`, `send_by_name` and `open_cluster`.
    """
    if target.address is not None and options.factory != AUTO:
        raise UsageError("--factory is for FAISS: a Milvus server is told --recall and --memory.")
    with nullcontext() if ray is None else open_cluster(ray, device) as cluster:
        if target.address is not None:
            from index.stores.milvus.pipeline import send_by_name

            sent = send_by_name(
                sources, model, target.address, teacher, device, target.folder, options, cluster
            )
            done = sent.written
            counts = (
                f"{len(sent.index)} images: {done.new} new, {done.changed} changed, {done.removed} removed"
            )
            listed = f", listed in {sent.index.data / ERRORS}" if sent.failures else ""
            return Made(f"{target.address}: {counts}; {len(sent.failures)} refused{listed}.", sent.failures)
        assert target.folder is not None
        index = index_by_name(sources, model, target.folder, teacher, device, options, cluster)
        files = f" in {len(index) + index.manifest.copies} files" if index.manifest.copies else ""
        summary = f"{target.folder}: {len(index)} images{files}, {index.manifest.failed} refused."
        return Made(summary, index.failures)
