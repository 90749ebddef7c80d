"""Embed on a Ray cluster: connect, divide the machines among workers, and hand out pieces of the files.

A worker that is killed costs the piece at hand, which another makes, and nothing comes twice. What was done
when the run itself was killed is found by the next.
"""

import logging
import os
import re
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from index.build.embed import Embedded
from index.build.ray_worker import SUFFIX, TRIES, Worker, list_files, read_piece
from index.embedders.base import Embedder
from index.errors import RetrievalError, UsageError, in_line, needs
from index.images.file import ImageFile
from index.io import content_digest
from index.parallel import CORES
from index.progress import say
from index.stores.records import Item

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
            with _explained():
                for outcome in outcomes.iter_rows():
                    if outcome["error"]:
                        raise RetrievalError(outcome["error"])
                    path = pieces / outcome["piece"]
                    yield read_piece(path)
                    path.unlink()


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


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what Ray says, which is pages, into one line."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        if lacking := re.search(r"No module named '([\w.]+)'", str(error)):
            raise RetrievalError(
                f"A machine of the Ray cluster lacks {lacking[1]}. Install there what is installed here."
            ) from error
        reason = str(error).strip().splitlines()[0]
        raise RetrievalError(f"Ray gave up: {reason} Go on with --resume.") from error
