"""Embed what has no vectors yet, each content once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from tqdm import tqdm

from index.build.embed import embed_files
from index.build.journal import Journal, Missing
from index.embedders.base import Embedder
from index.errors import ImageError
from index.images.file import ImageFile
from index.io import content_digest
from index.parallel import BATCH, WORKERS, bounded_map
from index.progress import progress, say
from index.teachers.ask import ask_ahead

if TYPE_CHECKING:
    from index.build.ray import RayCluster


def embed_missing(
    files: Sequence[ImageFile],
    models: Mapping[str, Embedder],
    journal: Journal,
    cluster: "RayCluster | None" = None,
) -> None:
    """Embed the files that a journal has no vectors for, and add them to it.

    Args:
        files: As they were listed in the journal.
        models: The embedders by name. A paid teacher is asked about all of the files first.
        journal: The unfinished run.
        cluster: Where to embed; None does it here. Copies of an image are embedded there too: to look for
            them would mean to read every file here.

    Raises:
        UsageError: The teacher is a file of vectors that lacks images, and none may be missing.
        BudgetError: The teacher's budget is too small; nothing was asked.
        RetrievalError: A model failed.
    """
    teacher = models.get("teacher")
    if teacher:
        teacher.find_missing(files)  # what may be missing is listed as refused
    missing = journal.count_missing()
    if missing < len(files):
        say(f"{missing} of {len(files)} images are new or changed, or were not reached.")
    with progress(missing, "index") as bar:
        # A second round is for copies of an image that could not be embedded, or that changed meanwhile.
        while True:
            done, underway = 0, set[str]()
            wanted: Iterable[ImageFile] = _find_missing(files, journal, underway, bar)
            if teacher:
                wanted = ask_ahead(wanted, teacher)
            parts = embed_files(wanted, models)
            if cluster:
                unread = (files[one.place] for one in journal.missing())
                parts = cluster(unread, journal.count_missing(), models, journal.folder, journal.lists)
            with closing(parts):
                for part in parts:
                    journal.add(part.items, part.vectors, part.failures)
                    underway.difference_update(item.digest for item in part.items)
                    done += len(part.items) + len(part.failures)
                    if part.waiting is not None:
                        bar.set_postfix_str(f"{part.waiting:.0%} waiting for data", refresh=False)
                    bar.update(len(part.items) + len(part.failures))
            if not done:
                return


def _find_missing(
    files: Sequence[ImageFile], journal: Journal, underway: set[str], bar: "tqdm[None]"
) -> Iterator[ImageFile]:
    """Yield the files to embed: not what is known by its content, nor a copy of one that is `underway`.

    What is yielded comes to be underway; the caller takes it out when the journal has it.
    """

    def look_into(missing: Missing) -> tuple[int, str | None]:
        return missing.place, _digest(files[missing.place]) if missing.doubtful else missing.digest

    with ThreadPoolExecutor(WORKERS) as pool:
        for place, digest in bounded_map(pool, look_into, journal.missing(), 2 * BATCH):
            if digest is not None:
                if journal.settle(place, digest) or digest in underway:
                    bar.update()
                    continue
                underway.add(digest)
            yield files[place]


def _digest(file: ImageFile) -> str | None:
    try:
        return content_digest(file.read()[0])
    except ImageError:  # the reason comes out when it is read to be embedded
        return None
