"""What runs in each process of a Ray cluster: the work of `embed_files`, for a piece of the files at a time.

Images are read and pieces are written on paths that all machines see.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.build.embed import Embedded, embed_files
from index.embedders.base import Embedder
from index.embedders.onnx import OnnxEmbedder, bits_of
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import ImageError, RetrievalError, in_line
from index.images.file import ImageFile, Member, path_to_text, text_to_path
from index.images.remote import Remote
from index.io import atomic_write, content_digest
from index.stores.records import Failure, Item, columns_of

SUFFIX = ".piece"
COLUMNS = columns_of(Item)


def write_piece(path: Path, embedded: Embedded) -> None:
    """Write what became of some files: beside, then renamed, so that the name is the mark that it is done."""
    failures = json.dumps([vars(failure) for failure in embedded.failures])
    schema = pa.schema(COLUMNS, {"failures": failures})
    table = pa.Table.from_pylist([vars(item) for item in embedded.items], schema)
    for space, rows in embedded.vectors.items():
        column = pa.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])
        table = table.append_column(f"vectors of {space}", column)
    with atomic_write(path, durable=True) as beside:
        pq.write_table(table, beside, compression="none", use_dictionary=False, write_page_checksum=True)


def read_piece(path: Path) -> Embedded:
    """Read a piece. RetrievalError says that it is damaged."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        items = [Item(*row.values()) for row in table.select([name for name, _ in COLUMNS]).to_pylist()]
        vectors = {}
        for name in table.column_names[len(COLUMNS) :]:
            rows = table[name].combine_chunks()
            flat = rows.flatten().to_numpy(zero_copy_only=False)
            vectors[name.removeprefix("vectors of ")] = flat.reshape(len(items), -1)
        failures = [Failure(**one) for one in json.loads(table.schema.metadata[b"failures"])]
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        reason = in_line(error, False)
        raise RetrievalError(f"{path} is damaged: {reason}. Remove it, then go on with --resume.") from error
    return Embedded(items, vectors, failures)


def join(parts: Sequence[Embedded]) -> Embedded:
    """Put outcomes together, in their order."""
    spaces = {space for part in parts for space in part.vectors}
    return Embedded(
        [item for part in parts for item in part.items],
        {s: np.concatenate([part.vectors[s] for part in parts if s in part.vectors]) for s in sorted(spaces)},
        [failure for part in parts for failure in part.failures],
    )


TRIES = ".tries"  # a byte for each process that began with a piece
MOST_TRIES = 4
FILE = "file"  # the column of a table of files: each as JSON


def list_files(files: Iterator[ImageFile], size: int) -> Iterator[pa.Table]:
    """List files in tables of `size` rows.

    A file whose folder is not here either says so itself: elsewhere that would look like a machine that does
    not see the images.
    """
    is_here = lru_cache(maxsize=1000)(os.path.isdir)  # unlike Path's, it takes a path of any length
    while rows := [as_text(_looked_for(file, is_here)) for file in islice(files, size)]:
        yield pa.table({FILE: rows})


def _looked_for(file: ImageFile, is_here: Callable[[Path], bool]) -> ImageFile:
    folder = _folder_of(file)
    if folder is None or is_here(folder):
        return file
    try:
        file.status()
    except ImageError as reason:
        return replace(file, fault=str(reason))
    return file


def _folder_of(file: ImageFile) -> Path | None:
    """Where a file lies on machines, if it is to be read there."""
    if file.fault or isinstance(file.member, Remote):
        return None
    return (file.member.shard if file.member else file.path).parent


def as_text(file: ImageFile) -> str:
    """A file as JSON."""
    return json.dumps(asdict(file), default=path_to_text)


def from_text(text: str) -> ImageFile:
    """The file that `as_text` made this of."""
    facts = json.loads(text)
    if member := facts.pop("member"):
        shard = member.pop("shard", None)
        member = Member(text_to_path(shard), **member) if shard else Remote(**member)
    return ImageFile(text_to_path(facts.pop("path")), member=member, **facts)


@dataclass(frozen=True)
class Worker:
    """The process. Its failures are answers: Ray would put its own words around an exception."""

    specs: Mapping[str, tuple[str, EmbedderOptions, str]]  # spec, options and key of each model by name
    device: str
    pieces: Path  # the folder to write to
    threads: int  # that read, decode and embed

    def __call__(self, table: pa.Table) -> dict[str, list[str]]:
        """Embed a piece, unless it is done, and return its name or the reason why not."""
        name = content_digest("\0".join(table[FILE].to_pylist()).encode()) + SUFFIX
        try:
            if not (self.pieces / name).exists():
                self._make([from_text(text) for text in table[FILE].to_pylist()], self.pieces / name)
        except ImportError:
            raise
        except Exception as error:
            what = "" if isinstance(error, (RetrievalError, OSError)) else f"{type(error).__name__}: "
            return {"piece": [""], "error": [f"{socket.gethostname()}: {what}{error}"]}
        return {"piece": [name], "error": [""]}

    def _make(self, files: list[ImageFile], path: Path) -> None:
        for folder in {self.pieces, *map(_folder_of, files)}:
            if folder is not None and not os.path.isdir(folder):  # noqa: PTH112
                raise RetrievalError(
                    f"{folder} is not here. Images and index must be where all machines see them."
                )
        tries = path.with_suffix(TRIES)
        with tries.open("ab") as file:
            file.write(b".")
        if tries.stat().st_size > MOST_TRIES:
            raise RetrievalError(
                f"{MOST_TRIES} workers died while they embedded {files[0].location} to {files[-1].location}. "
                "Is there too little memory, or an image that no decoder survives?"
            )
        write_piece(path, join(list(embed_files(files, self.models, workers=self.threads))))
        tries.unlink()

    @cached_property
    def models(self) -> dict[str, Embedder]:
        """The models, opened."""
        opened: dict[str, Embedder] = {}
        for name, (spec, options, key) in self.specs.items():
            if name == "student":
                opened[name] = OnnxEmbedder(Path(spec), self.device, 1, bits_of(key))
            else:
                opened[name] = open_embedder(spec, self.device, options)
            if opened[name].key != key:
                raise RetrievalError(f"{spec} is another file here. Put it where all machines see the same.")
        return opened
