"""Vectors that someone else computed, in one file: an embedder that only looks up."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.embedder import Calls, find_fault, unit_rows
from index.errors import ImageError, UsageError
from index.images import Photo, content_digest
from index.options import EmbedderOptions

LAYOUT = "`ids` of n texts and `vectors` of n rows, in an .npz file as arrays, in a .parquet file as columns"


class VectorsEmbedder:
    """A file of vectors by content digest (`content_digest`: what `b2sum -l 128` prints) or by relative path.

    A path is the one below the folder of images that is given to a command. Only an image that was found
    there is looked up by it, so that no other photo is taken for one of the same name.
    """

    calls = Calls(batch=1)
    options = EmbedderOptions()
    side = 1
    provider = "file"

    def __init__(self, path: Path) -> None:
        """Read the file whole.

        Raises:
            UsageError: It cannot be read, or is not laid out as it must be.
        """
        if not path.is_file():
            raise UsageError(f"{path} does not exist. Give a file of vectors.")
        try:
            ids, vectors = (_read_npz if path.suffix == ".npz" else _read_parquet)(path)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise UsageError(f"{path} is no file of vectors, which has {LAYOUT}.") from error
        if vectors.ndim != 2 or len(ids) != len(vectors) or not vectors.size:
            raise UsageError(f"{path} has {len(ids)} ids for vectors {vectors.shape}; it needs {LAYOUT}.")
        self._rows = {name: i for i, name in enumerate(ids)}
        if len(self._rows) < len(ids):
            raise UsageError(f"{path} names an image twice.")
        self._vectors = vectors
        self.key = f"vectors:{content_digest(path.read_bytes())}"
        self.name = path.name
        self.spec = str(path.absolute())
        self.dim = vectors.shape[1]

    def prepare(self, photo: Photo) -> NDArray[np.float32]:
        """Look the image up.

        Raises:
            ImageError: The file has no vector for it, or one without a direction.
        """
        row = self._rows.get(photo.digest)
        if row is None and photo.below:
            row = self._rows.get(photo.name)
        if row is None:
            raise ImageError(f"no vector in {self.name}")
        if fault := find_fault(self._vectors[row]):
            raise ImageError(f"{self.name} {fault}")
        return self._vectors[row]

    def embed(self, batch: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Scale n vectors to `(n, dim)` float32 unit rows."""
        return unit_rows(np.stack(batch), self.name)


def write_vectors(path: Path, dim: int, chunks: Iterable[tuple[list[str], NDArray[np.float32]]]) -> None:
    """Write a file of vectors, beside its place first.

    Args:
        path: Ends in .npz or .parquet. The latter is written in bounded memory.
        dim: Length of the vectors.
        chunks: n ids and `(n, dim)` float32 at a time.

    Raises:
        UsageError: The ending is another, or the folder does not exist.
    """
    if path.suffix not in (".npz", ".parquet"):
        raise UsageError(f"{path} must end in .npz or .parquet.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} does not exist. Make it, or write elsewhere.")
    beside = path.with_name(f".partial-{path.name}")
    try:
        if path.suffix == ".npz":
            parts = list(chunks)
            ids = [name for names, _ in parts for name in names]
            vectors = np.concatenate([np.empty((0, dim), np.float32), *(rows for _, rows in parts)])
            np.savez(beside, ids=np.array(ids), vectors=vectors)
        else:
            schema = pa.schema([("ids", pa.string()), ("vectors", pa.list_(pa.float32(), dim))])
            with pq.ParquetWriter(beside, schema) as writer:
                for names, rows in chunks:
                    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim)
                    writer.write_table(pa.table([pa.array(names, pa.string()), vectors], schema=schema))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _read_npz(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["ids"].astype(str).tolist(), arrays["vectors"].astype(np.float32)


def _read_parquet(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    table = pq.read_table(path, columns=["ids", "vectors"])
    flat = table["vectors"].combine_chunks()
    values = flat.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return table["ids"].to_pylist(), values.reshape(len(table), -1)
