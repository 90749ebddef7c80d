"""Embed on a Ray cluster: connect, divide the machines among workers, and hand out pieces of the files.

In each process of the cluster a `Worker` does the work of `embed_files`, for a piece at a time, and writes
what came of it to a file. Images are read and pieces are written on paths that all machines see. A worker
that is killed costs the piece at hand, which another makes, and nothing comes twice. What was done when the
run itself was killed is found by the next.
"""

import json
import logging
import os
import re
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from index.build.embed import Embedded, embed_files, join
from index.embedders.base import Embedder
from index.embedders.onnx import OnnxEmbedder, bits_of
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import ImageError, RetrievalError, UsageError, in_line, needs
from index.images.file import ImageFile, Member, path_to_text, text_to_path
from index.images.remote import Remote
from index.io import atomic_write, content_digest
from index.parallel import CORES
from index.progress import say
from index.stores.records import Failure, Item, columns_of

FEWEST, MOST = 64, 4096  # images of a piece
PIECES_EACH = 8  # for a worker, so that none waits long for the last
CORES_EACH = 8  # for a worker, at most: a whole machine is seldom free
SETTINGS = b"\x04"  # the type of the frame with which both sides of HTTP/2, which Ray speaks, begin
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS + bytes(5)
WINDOW = 1 << 22  # files that Ray is told of at a time


@contextmanager
def open_cluster(address: str, device: str) -> "Iterator[RayCluster]":
    """Connect to Ray, whose workers embed on a device, and leave it afterwards.

    The address is that of a cluster, `host:port`, which this machine is part of; or `auto`: the one that the
    environment names in `RAY_ADDRESS`, or one that is started for this machine alone.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "local"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    start: dict[str, Any] = {}
    if address == "local":
        # The only way to have it listen on loopback alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_worker_niceness", "0")
        start = {"include_dashboard": False, "num_cpus": CORES}
    else:
        _require_listener(address)
    with needs("ray"):
        import ray
        import ray.data
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **start)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"The Ray cluster {address} cannot be used: {in_line(error, False, 200)}") from error
    # What goes wrong is raised too, and told in one line.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray._private.worker._worker_logs_enabled = False  # `log_to_driver` lets through what is said of the dead
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield RayCluster(device)
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Find out soon what Ray takes minutes to find out."""
    found = re.fullmatch(r"([^/:]+|\[.+\]):(\d+)", address)
    if not found:
        raise UsageError(f"--ray must be auto or the address of a cluster, host:port, not {address!r}.")
    try:
        with socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=5) as there:
            there.sendall(GREETING)
            answer = there.recv(9, socket.MSG_WAITALL)
    except (OSError, OverflowError, UnicodeError) as error:  # the last is of a name that is none
        raise UsageError(
            f"No Ray cluster at {address}: {error}. Start one with `ray start --head`, or give --ray auto."
        ) from error
    # An encrypted one answers nothing in the open.
    encrypted = os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true")
    if answer[3:4] != SETTINGS and not encrypted:
        raise UsageError(
            f"{address} is no Ray cluster. Give the port that `ray start --head` names, such as 6379."
        )


@dataclass(frozen=True)
class RayCluster:
    """A cluster that this process is connected to, and what its workers embed on. Calling it embeds."""

    device: str

    def __call__(
        self,
        files: Iterable[ImageFile],
        count: int,
        models: Mapping[str, Embedder],
        folder: Path,
        is_listed: Callable[[Item], bool],
    ) -> Generator[Embedded, None, None]:
        """Embed about so many files on all machines, which see the folder of the unfinished run.

        The files are not looked at before the pieces that an earlier run left were yielded, if they are still
        listed. Workers open the models by their specs.

        Yields:
            The outcome of a piece at a time, as they are done. Its file is there until the next is asked for.

        Raises:
            UsageError: A teacher has a price: its budget is kept by one process.
            RetrievalError: A model failed, a machine lacks something, or workers died of one piece.
        """
        import ray.data
        from ray.exceptions import RayError

        for name, model in models.items():
            if model.calls.paid:
                raise UsageError(
                    f"--ray cannot ask {model.name}: one process keeps its budget. Index without --ray, or "
                    f"give as --{name} the file that `retrieval ledger export` writes of its answers."
                )
        pieces = folder / pieces_name(models.values())
        pieces.mkdir(exist_ok=True)
        yield from _left_in(pieces, is_listed)
        workers, threads, gpus = plan(ray.nodes(), self.device)
        size = min(max(FEWEST, count // (PIECES_EACH * workers)), MOST)
        specs = {name: (model.spec, model.options, model.key) for name, model in models.items()}
        told = specs, self.device if gpus else "cpu", pieces, threads
        remaining = iter(files)
        while window := list(list_files(islice(remaining, WINDOW), size)):
            outcomes = ray.data.from_arrow(window).map_batches(
                Worker,
                fn_constructor_args=told,
                batch_size=size,
                batch_format="pyarrow",
                num_cpus=threads,
                num_gpus=gpus,
                compute=ray.data.ActorPoolStrategy(size=workers),
            )
            try:
                for outcome in outcomes.iter_rows():
                    if outcome["error"]:
                        raise RetrievalError(outcome["error"])
                    path = pieces / outcome["piece"]
                    yield read_piece(path)
                    path.unlink()
            except RayError as error:
                raise _explain(error) from error


def plan(nodes: Iterable[Mapping[str, Any]], device: str) -> tuple[int, int, int]:
    """Divide machines, as Ray describes them, among workers: how many, and the cores and GPUs of each."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    cores = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive]
    if device != "cpu" and (with_gpu := [(cpu, gpu) for cpu, gpu in cores if cpu and gpu]):
        return sum(gpu for _, gpu in with_gpu), max(1, min(cpu // gpu for cpu, gpu in with_gpu)), 1
    each = min(CORES_EACH, min((cpu for cpu, _ in cores if cpu), default=1))
    return max(1, sum(cpu // each for cpu, _ in cores)), each, 0


def pieces_name(models: Iterable[Embedder]) -> str:
    """Name the folder of the pieces that these models make: those of others are left alone."""
    return f"pieces-{content_digest(''.join(model.key for model in models).encode())}"


def _left_in(pieces: Path, is_listed: Callable[[Item], bool]) -> Iterator[Embedded]:
    """Yield what an earlier run has left, of files that are listed and as they were."""
    for path in pieces.glob(f"*{TRIES}"):
        path.unlink()
    for path in sorted(pieces.glob(f"*{SUFFIX}")):
        try:
            piece = read_piece(path)
        except RetrievalError as error:
            say(f"{error} Its images are embedded again.")
        else:
            kept = [i for i, item in enumerate(piece.items) if is_listed(item)]
            vectors = {name: rows[kept] for name, rows in piece.vectors.items()}
            yield Embedded([piece.items[i] for i in kept], vectors, [])
        path.unlink()


def _explain(error: Exception) -> RetrievalError:
    """Make one line of what Ray says, which is pages."""
    if lacking := re.search(r"No module named '([\w.]+)'", str(error)):
        return RetrievalError(
            f"A machine of the Ray cluster lacks {lacking[1]}. Install there what is installed here."
        )
    reason = str(error).strip().splitlines()[0]
    return RetrievalError(f"Ray gave up: {reason} Go on with --resume.")


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


TRIES = ".tries"  # a byte for each process that began with a piece
MOST_TRIES = 4
FILE = "file"  # the column of a table of files: each as JSON


def list_files(files: Iterator[ImageFile], size: int) -> Iterator[pa.Table]:
    """List files in tables of `size` rows.

    A file whose folder is not here either says so itself: elsewhere that would look like a machine that does
    not see the images.
    """
    is_here = lru_cache(maxsize=1000)(os.path.isdir)  # unlike Path's, it takes a path of any length
    while some := list(islice(files, size)):
        found = [file if is_here(_folder_of(file) or "/") else _looked_for(file) for file in some]
        yield pa.table({FILE: [as_text(file) for file in found]})


def _looked_for(file: ImageFile) -> ImageFile:
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
