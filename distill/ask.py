"""Whom to ask, and the asking: answers from the ledger where it has them, from the teacher where not."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from distill.backbone import Backbone
from distill.examples import Looked, look
from distill.ledger import Ledger
from distill.selection import order_by_worth, sample_pool
from index.embedder import Embedder, embed_checked
from index.errors import ImageError, RetrievalError
from index.images import ImageFile, Photo, content_digest, read_photo
from index.pipeline import BATCH, WORKERS, map_ahead
from index.progress import progress
from index.store import Failure

SAME = 1e-5  # difference between coordinates of unit vectors that is no more than rounding
FEWEST = 2  # answers that a projection can be fitted to


@dataclass(frozen=True)
class Answered:
    """The images that the teacher has answered for.

    Attributes:
        digests: Content digest of each of n images, in order: when each was asked about leaves no trace.
        vectors: `(n, teacher dim)` float32, the answers.
        asked: How many of them were paid for just now.
        failures: Chosen images that could not be read.
    """

    digests: list[str]
    vectors: NDArray[np.float32]
    asked: int
    failures: list[Failure]


@dataclass(frozen=True)
class Survey:
    """What may be asked about and learnt from: distinct images of a pool that can be read, by digest.

    Attributes:
        files: n image files.
        digests: Content digest of each.
        looked: What was seen of them.
    """

    files: list[ImageFile]
    digests: list[str]
    looked: Looked


def survey_pool(
    files: Sequence[ImageFile],
    ledger: Ledger,
    backbone: Backbone,
    fabric: Fabric,
    side: int,
    most: int,
    seed: int,
) -> Survey:
    """Look at a sample of a pool.

    Args:
        files: The pool.
        ledger: Whose answered images come first.
        backbone: The student's, whole.
        fabric: Where the backbone computes.
        side: Of the squares to keep of the images, in pixels.
        most: How many images to look at.
        seed: Of the sample.
    """
    digests = digest_pool(files)
    sample = sample_pool(digests, ledger.known(digests), most, seed)
    looked = look([files[i] for i in sample], backbone, side, fabric)
    readable = [sample[row] for row in looked.rows]
    return Survey([files[i] for i in readable], [digests[i] for i in readable], looked)


def consult(
    survey: Survey, teacher: Embedder, ledger: Ledger, budget: int, select: str, seed: int
) -> Answered:
    """Choose whom to ask about, and ask.

    Args:
        survey: What was seen of the pool.
        teacher: The model to ask.
        ledger: Its paid answers.
        budget: How many answers to collect, and how many the ledger may ever hold.
        select: Which images to ask about, as in `order_by_worth`.
        seed: Of everything random.

    Raises:
        RetrievalError: Too few images, a spent budget, or a teacher that tells nothing apart.
    """
    if len(survey.digests) < FEWEST:
        raise RetrievalError(_too_few(len(survey.digests), survey.looked.failures, [], 0, ledger, budget))
    known = ledger.known(survey.digests)
    free = np.array([digest in known for digest in survey.digests], bool)
    worth = order_by_worth(survey.looked.features, free, budget, select, seed)
    answered = ask_teacher(survey.files, survey.digests, worth, teacher, ledger, budget)
    if np.ptp(answered.vectors, axis=0).max() < SAME:
        raise RetrievalError(
            f"{teacher.name} gives all {len(answered.digests)} images the same vector: there is nothing to "
            "learn. Check the teacher, or give other images."
        )
    return answered


def digest_pool(files: Sequence[ImageFile]) -> list[str]:
    """Content digest of each file; of one that cannot be read, a digest of its path, and it fails later."""

    def digest(file: ImageFile) -> str:
        try:
            return content_digest(file.path.read_bytes())
        except OSError:
            return content_digest(str(file.path).encode(errors="surrogateescape"))

    with ThreadPoolExecutor(WORKERS) as pool, progress(len(files), "read") as bar:
        digests = []
        for found in map_ahead(pool, digest, files, ahead=4 * BATCH):
            digests.append(found)
            bar.update()
        return digests


def ask_teacher(
    files: Sequence[ImageFile],
    digests: Sequence[str],
    order: Sequence[int],
    teacher: Embedder,
    ledger: Ledger,
    budget: int,
) -> Answered:
    """Collect answers for images in a given order, from the ledger where it has them, up to the budget.

    Args:
        files: The pool.
        digests: Content digest of each file.
        order: Positions in the pool, best first, answered ones before others.
        teacher: The model to ask.
        ledger: Where answers come from, and are stored before use.
        budget: How many images to collect, and how many answers the ledger may ever hold.

    Raises:
        RetrievalError: Nothing may be asked any more, or too few images can be read.
    """
    known = ledger.known([digests[i] for i in order])
    left = max(budget - len(ledger), 0)
    free, paid = [i for i in order if digests[i] in known], [i for i in order if digests[i] not in known]

    def prepare(i: int) -> tuple[int, Photo] | Failure:
        try:
            return i, read_photo(files[i], teacher.side)
        except ImageError as reason:
            return Failure(str(files[i].path), str(reason))

    kept: list[int] = []
    failures: list[Failure] = []
    asked = 0
    with ThreadPoolExecutor(WORKERS) as pool, progress(min(budget, len(order)), "ask") as bar:
        for candidates, limit in ((free, budget), (paid, left)):
            outcomes = map_ahead(pool, prepare, candidates, ahead=2 * BATCH)
            taken = 0
            while (wanted := min(BATCH, limit - taken, budget - len(kept))) > 0:
                chunk = list(islice(outcomes, wanted))
                if not chunk:
                    break
                failures += [outcome for outcome in chunk if isinstance(outcome, Failure)]
                photos = [outcome for outcome in chunk if not isinstance(outcome, Failure)]
                if candidates is paid and photos:
                    _ask(teacher, [photo for _, photo in photos], ledger)
                    asked += len(photos)
                kept += [i for i, _ in photos]
                taken += len(photos)
                bar.update(len(photos))
    if len(kept) < FEWEST:
        raise RetrievalError(_too_few(len(kept), failures, paid, left, ledger, budget))
    kept_digests = sorted(digests[i] for i in kept)
    answers = ledger.answers(kept_digests)
    return Answered(kept_digests, np.stack([answers[digest] for digest in kept_digests]), asked, failures)


def _ask(teacher: Embedder, photos: Sequence[Photo], ledger: Ledger) -> None:
    names = [photo.name for photo in photos]
    vectors = embed_checked(teacher, [teacher.prepare(photo) for photo in photos], names)
    ledger.add([photo.digest for photo in photos], vectors)


def _too_few(
    count: int, failures: Sequence[Failure], paid: Sequence[int], left: int, ledger: Ledger, budget: int
) -> str:
    if paid and not left:
        return (
            f"The budget of {budget} is spent: {ledger.path} holds {len(ledger)} answers, "
            f"{count} of them about these images. Raise --budget, or give another --ledger."
        )
    reason = f" The first that cannot be read: {failures[0].path}: {failures[0].reason}." if failures else ""
    return f"Only {count} usable images with different content; at least {FEWEST} are needed.{reason}"
