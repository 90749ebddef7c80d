"""Vectors that someone else computed, in one file: an embedder that only looks up."""

import io
import json
import pickletools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from platformdirs import user_cache_path

from index.embedders.base import Calls, Embedder, RankedList, find_fault, unit_rows
from index.embedders.options import EmbedderOptions
from index.errors import ImageError, UsageError, in_line
from index.images.decode import Photo
from index.images.file import ImageFile, digest_pool, plain_path, readable
from index.io import atomic_write, content_digest, file_digest, open_npz
from index.progress import count, printable, say

REMARKS, RANKER, LISTS = NOTES = ("retrieval.remarks", "retrieval.ranker", "retrieval.lists")  # in a file
LAYOUT = "`ids` of n texts and `vectors` of n rows, in an .npz file as arrays, in a .parquet file as columns"
DIGEST = re.compile("[0-9a-f]{32}")
NAMED = 3  # of the images that are lacking


class VectorsEmbedder(Embedder):
    """A file of vectors by content digest (`content_digest`: what `b2sum -l 128` prints) or by relative path.

    A path is the one below the folder of images that is given to a command, or absolute, however it is
    written (`plain_path`). Only an image that was found there is looked up by it, so that no other photo is
    taken for one of the same name.
    """

    calls = Calls(batch=1)

    def __init__(self, path: Path, options: EmbedderOptions) -> None:
        """Read a file whole: Parquet, unless it ends in .npz; UsageError if it is not laid out so."""
        if not path.is_file():
            raise UsageError(f"{path} does not exist. Give a file of vectors.")
        try:
            with np.errstate(over="ignore"):  # becomes infinite, and is refused as that
                ids, vectors, notes = (_read_npz if path.suffix == ".npz" else _read_parquet)(path)
            self.remarks, self.ranker = printable(notes.get(REMARKS, "")), json.loads(notes.get(RANKER, "{}"))
            self.ranked = [RankedList(*one) for one in json.loads(notes.get(LISTS, "[]"))]
        except Exception as error:  # pyarrow raises several kinds
            why = in_line(error, named=False).rstrip(".")
            what = f"{path} is damaged, or no file of vectors, which has {LAYOUT}: {why}"
            raise UsageError(f"{what}. Write it again, or copy it whole.") from error
        if vectors.ndim != 2 or len(ids) != len(vectors) or not vectors.size:
            raise UsageError(f"{path} has {len(ids)} ids for vectors {vectors.shape}; it needs {LAYOUT}.")
        if lacking := [i for i, name in enumerate(ids) if not isinstance(name, str)]:
            raise UsageError(f"{path} has no id in row {lacking[0]}; it needs {LAYOUT}.")
        self._rows = {name: i for i, name in enumerate(ids)}
        if len(self._rows) < len(ids):
            raise UsageError(f"{path} names an image twice. Keep one row of each.")
        plain = [plain_path(name) for name in ids]
        times = Counter(plain)
        self._plain = {name: i for i, name in enumerate(plain) if times[name] == 1}
        self._vectors = vectors
        self.options = options
        self.key = f"vectors:{file_digest(path)}"
        self.name = readable(path.name)
        self.spec = str(path.absolute())
        self._unknown = f"no vector in {self.name}"
        self.dim = vectors.shape[1]

    def prepare(self, photo: Photo) -> NDArray[np.float32]:
        """Look the image up; ImageError if there is no vector for it, or one without a direction."""
        row, fault = self._find(photo.digest, photo)
        if fault:
            raise ImageError(fault)
        return self._vectors[row]

    def embed(self, batch: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Scale n vectors to `(n, dim)` float32 unit rows."""
        return unit_rows(np.stack(batch), self.name)

    def find_missing(
        self, files: Sequence[ImageFile], digests: Sequence[str] | None = None
    ) -> dict[int, str]:
        """Find the images that it lacks, as `Embedder.find_missing`: reads them only if ids are digests.

        Raises:
            UsageError: All are missing, or some are and the options do not allow that; or two images share
                the path that one vector is filed under.
        """
        missing: dict[int, str] = {}
        owners: dict[int, int] = {}
        if digests is None and any(map(DIGEST.fullmatch, self._rows)):
            digests = digest_pool(files)
        for i, file in enumerate(files):
            row, fault = self._find(digests[i] if digests else "", file)
            if fault:
                missing[i] = fault
            elif (owner := owners.setdefault(row, i)) != i:
                one, other = (digests[owner], digests[i]) if digests else digest_pool([files[owner], file])
                if one != other:
                    raise UsageError(
                        f"{self.name} has one vector for {files[owner].location} and {file.location}. "
                        "Give one folder of images, or content digests as `ids`."
                    )
        if not missing:
            return missing
        named = ", ".join(files[i].name for i in islice(missing, NAMED))
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        some = f"{len(missing)} of {count(len(files), 'image')}"
        reasons = sorted({*missing.values()} - {self._unknown})
        why = f" ({', '.join(reasons)})" if reasons else ""
        line = f"{some} without a usable vector in {self.name}: {named}{more}{why}."
        if not reasons and len(missing) == len(files) and not self.options.allow_missing:
            raise UsageError(f"{line} Paths count from the folder of images that is given.")
        if not self.options.allow_missing:
            raise UsageError(f"{line} Give --allow-missing to go on without them.")
        say(f"Left out: {line}")
        return missing

    def _find(self, digest: str, image: Photo | ImageFile) -> tuple[int, str]:
        """Find the row of an image, and why it cannot be an answer; empty if it can."""
        rows = [self._rows.get(digest)]
        if image.below:
            rows += [self._rows.get(image.name)]
            rows += [self._plain.get(plain_path(path)) for path in (image.name, image.location)]
        row = next((row for row in rows if row is not None), None)
        if row is None:
            return -1, self._unknown
        fault = find_fault(self._vectors[row])
        return row, f"{self.name} {fault}" if fault else ""


def check_place(path: Path) -> None:
    """Raise UsageError where no file of vectors can be written: no .npz or .parquet, or in no folder."""
    if path.suffix not in (".npz", ".parquet"):
        raise UsageError(f"{path} must end in .npz or .parquet.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} does not exist. Make it, or write elsewhere.")


def write_vectors(
    path: Path,
    dim: int,
    chunks: Iterable[tuple[list[str], NDArray[np.float32]]],
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write n ids and `(n, dim)` float32 at a time to a file of vectors, beside its place first.

    A path ends in .npz or in .parquet, which is written in bounded memory. Notes are of `NOTES`.

    Raises:
        UsageError: The ending is another, or the folder does not exist.
    """
    check_place(path)
    with atomic_write(path) as beside:
        if path.suffix == ".npz":
            parts = list(chunks)
            ids = [name for names, _ in parts for name in names]
            vectors = np.concatenate([np.empty((0, dim), np.float32), *(rows for _, rows in parts)])
            with beside.open("wb") as file:  # of a name it would add an ending
                more: dict[str, Any] = {name: np.array(note) for name, note in notes.items()}
                np.savez(file, ids=np.array(ids), vectors=vectors, **more)
        else:
            schema = pa.schema([("ids", pa.string()), ("vectors", pa.list_(pa.float32(), dim))])
            schema = schema.with_metadata(dict(notes)) if notes else schema
            with pq.ParquetWriter(beside, schema) as writer:
                for names, rows in chunks:
                    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim)
                    writer.write_table(pa.table([pa.array(names, pa.string()), vectors], schema=schema))


def keep_vectors(ids: Sequence[str], vectors: ArrayLike) -> str:
    """Write vectors into the cache folder, named by their content: an index names its teacher's file."""
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or len(rows) != len(ids):
        raise UsageError(f"Give n ids and (n, dim) vectors, not {len(ids)} and {rows.shape}.")
    digest = content_digest("\n".join(ids).encode() + rows.tobytes())
    path = user_cache_path("retrieval", ensure_exists=True) / f"vectors-{digest}.npz"
    write_vectors(path, rows.shape[1], [(list(ids), rows)])
    return str(path)


def _read_npz(path: Path) -> tuple[list[str], NDArray[np.float32], dict[str, str]]:
    with open_npz(path) as arrays:
        if not {"ids", "vectors"} <= set(arrays.files):
            raise ValueError(f"it has {', '.join(arrays.files) or 'no arrays'}")
        notes = {name: str(arrays[name]) for name in NOTES if name in arrays.files}
        vectors = arrays["vectors"]
        try:
            ids = arrays["ids"].astype(str).tolist()
        except ValueError:  # of Python objects
            ids = read_object_texts(io.BytesIO(arrays.zip.read("ids.npy")))
    if vectors.dtype == "V2":  # what NumPy knows of bfloat16
        vectors = (vectors.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if vectors.dtype.kind not in "fiu":
        raise ValueError(f"its vectors are of type {vectors.dtype}, not numbers")
    return ids, vectors.astype(np.float32), notes


def _read_parquet(path: Path) -> tuple[list[str], NDArray[np.float32], dict[str, str]]:
    if not {"ids", "vectors"} <= set(names := pq.read_schema(path).names):
        raise ValueError(f"it has {', '.join(names) or 'no columns'}")
    table = pq.read_table(path, columns=["ids", "vectors"])
    column = table["vectors"].combine_chunks()
    if isinstance(column.type, pa.BaseExtensionType):  # a tensor, say
        column = column.storage
    held = getattr(column.type, "value_type", pa.null())
    if not (pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_decimal(held)):
        raise ValueError(f"its vectors are of type {column.type}, not lists of numbers")
    lengths = pc.list_value_length(column)
    present = pc.fill_null(pc.greater(lengths, 0), False)
    if (number := pc.count_distinct(lengths.filter(present)).as_py()) != 1:
        raise ValueError("vectors of several lengths" if number else "its vectors are all empty")
    ids = table["ids"].cast(pa.string()).filter(present)
    values = column.filter(present).flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    known = table.schema.metadata or {}
    notes = {name: known[name.encode()].decode() for name in NOTES if name.encode() in known}
    return ids.to_pylist(), values.reshape(len(ids), -1), notes


NEUTRAL = ("FRAME", "MARK", "APPEND", "APPENDS")  # which change no member of a list


def read_object_texts(file: IO[bytes]) -> list[str]:
    """Read a `.npy` file of n texts, whose opcodes are looked at, none carried out; else ValueError."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of objects in a form that is not read")
    shape, _, _ = np.lib.format.read_array_header_1_0(file)
    memo: dict[Any, Any] = {}
    texts: list[str] | None = None
    last = None  # what the last opcode put on the stack, if that is a text
    for opcode, value, _ in pickletools.genops(file):
        name = opcode.name
        if name == "MEMOIZE" or name.endswith("PUT"):
            memo[len(memo) if value is None else value] = last
            continue
        last = value if name.endswith("UNICODE") else memo.get(value) if name.endswith("GET") else None
        if texts is None:
            texts = [] if name == "EMPTY_LIST" else None
        elif last is not None:
            texts.append(last)
        elif name not in NEUTRAL:
            break
    if shape != (number := len(texts or ()),):
        raise ValueError(f"{shape[0] if shape else 1} ids as Python objects, of which {number} are texts")
    return texts or []
