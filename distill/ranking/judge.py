"""From a teacher that only ranks to a file of vectors: choose lists, ask, learn, tell how well, write."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.examples import Answered, hold_out
from distill.model.backbone import create_backbone
from distill.photos import PhotoReader
from distill.pool import extract_features
from distill.ranking.learn import Agreement, Known, learn
from distill.ranking.lists import plan_lists, reverse, room_for
from distill.training.device import open_fabric
from index.embedders.vectors_file import LISTS, RANKER, REMARKS, check_place, write_vectors
from index.errors import RetrievalError
from index.images.file import ImageFile
from index.images.sources import Source, find_images
from index.progress import count, say
from index.rankers.asking import ask_lists, key_of
from index.rankers.base import Pool, Ranker, Rows, kendall_tau
from index.teachers.ledger import Ledger

LEAST_AGREEMENT = 0.3  # of a ranker with itself, as Kendall's tau
HELD_OUT = 0.1  # of the lists
NETWORK = "tf_efficientnet_lite0"  # the free one
SMALL = 8  # pixels: of squares, which nothing is learnt from here
NAMED = 3  # of the lists without an answer
FEWEST = 12  # photos of a pool: a query, its candidates, and one more
Orders = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Judged:
    """What was written, and how well it orders photos as the ranker does."""

    out: Path  # the file of vectors
    photos: int  # how many it holds
    lists: int  # how many were learnt from, or held out
    # Kendall's tau of the ranker with itself, and over how many lists; NaN where none was asked twice
    own: tuple[float, int]
    before: Agreement  # of the free network with orders that were held out
    after: Agreement  # the same of what was learnt, over as many lists
    learnt: bool  # whether anything was
    unanswered: int  # how many lists have no answer

    def __str__(self) -> str:
        """Sum it up for people."""
        told = "not measured: too few lists"
        if self.after.lists:
            told = f"{self.before} before (the free network), {self.after} after; n = {self.after.lists}"
        ceiling = f"{self.own[0]:.3f} (n = {self.own[1]})" if self.own[1] else "not asked"
        nothing = "\nNothing was learnt that lists left out bear out: the vectors are the free network's."
        return (
            f"{self.out}: vectors of {count(self.photos, 'photo')}, from {count(self.lists, 'list')}; "
            f"{self.unanswered} without an answer.\n"
            f"Kendall's tau and top-1 with the ranker on held-out lists: {told}.\n"
            f"The ranker with itself, asked again in reverse: {ceiling}.{'' if self.learnt else nothing}"
        )

    def describe_teacher(self, ranker: str) -> str:
        """Say what these vectors are, for those who learn from them."""
        told = f"Kendall's tau and top-1 {self.after} on {count(self.after.lists, 'held-out list')}"
        how = "learnt from the orders of" if self.learnt else "the free network's, nothing was learnt from"
        return f"; {how} {ranker}, {told if self.after.lists else 'not measured'}"


def judge(
    photos: Sequence[Source],
    ranker: Ranker,
    ledger: Ledger,
    budget: int,
    out: Path,
    queries: Sequence[Source] = (),
    device: str = "auto",
    seed: int = 0,
) -> Judged:
    """Ask a ranker about lists of photos, learn its orders, and write vectors of all by content digest.

    Queries get a vector too, and are asked about in no list. The budget is how many lists may ever be asked
    about; `out` is an .npz or .parquet file.

    Raises:
        RetrievalError: The ranker contradicts itself, or it, its ledger or a file cannot be used.
    """
    check_place(out)
    pool, known = read_photos(find_images(photos), find_images(queries) if queries else (), device)
    own_lists = ranker.lists(pool)
    budget = room_for(own_lists, ranker, ledger, budget)
    if own_lists is None:
        lists, again = plan_lists(known.start[: len(pool.digests)], pool, ledger.digests, budget, seed)
    else:
        lists, again = own_lists[:budget], []
    twice, failures = ask_lists([*again, *map(reverse, again)], pool, ranker, ledger, budget)
    own = _agree_with_itself(again, pool, twice)
    if own[1] and own[0] < LEAST_AGREEMENT:
        times = count(own[1], "list")
        raise RetrievalError(
            f"{ranker.name} contradicts itself: Kendall's tau is {own[0]:.2f} over {times} asked again in "
            f"reverse, and {LEAST_AGREEMENT} is the least to learn from. Nothing more was asked. "
            "Give another ranker, or photos that it can tell apart."
        )
    answers, failed = ask_lists(lists, pool, ranker, ledger, budget)
    found = [rows for rows in lists if key_of(rows, pool) in answers]
    for failure in (failures + failed)[:NAMED]:
        say(f"No answer about {failure.path}: {failure.reason}.")
    if not found:
        raise RetrievalError(f"{ranker.name} has an answer about no list. Check it, the photos and --budget.")
    told = Answered.of(found, [answers[key_of(rows, pool)] for rows in found])
    say(f"Learning from {count(len(found), 'list')}.")
    held = hold_out([pool.digests[rows[0]] for rows in found], HELD_OUT)
    learnt = learn(known, told.take(~held), seed)
    before, after = (Agreement.of(vectors, told.take(held)) for vectors in (known.start, learnt.vectors))
    left_out = len(lists) - len(found)
    judged = Judged(out, len(known.start), len(found), own, before, after, learnt.changed, left_out)
    # Lists that bore no map out would teach the student noise.
    used = [rows for rows, left in zip(found, held, strict=True) if not left and learnt.pull is not None]
    notes = {REMARKS: judged.describe_teacher(ranker.name), RANKER: json.dumps(ranker.facts)}
    notes[LISTS] = json.dumps([_as_note(rows, pool, answers) for rows in used])
    write_vectors(out, known.start.shape[1], [([*pool.digests, *pool.others], learnt.vectors)], notes)
    return judged


def _as_note(rows: Rows, pool: Pool, answers: Orders) -> tuple[str, list[str], list[int]]:
    """Write a list as the fields of a `RankedList`."""
    query, *candidates = (pool.digests[row] for row in rows)
    gains = answers[key_of(rows, pool)][: len(candidates)].tolist()
    return query, candidates, [round(1 / gain) if gain else 0 for gain in gains]


def read_photos(photos: Sequence[ImageFile], queries: Sequence[ImageFile], device: str) -> tuple[Pool, Known]:
    """Read distinct photos: the pool, and what the free network says of it and of what follows it.

    Raises:
        RetrievalError: They are too few for a list.
    """
    backbone = create_backbone(NETWORK)
    backbone.fold_batch_norm()
    reader, files = PhotoReader(), [*photos, *queries]
    digests = reader.digest(files)
    first = dict(zip(digests[::-1], files[::-1], strict=True))
    order = list(dict.fromkeys(digests))
    fabric = open_fabric(device)
    read = extract_features([first[digest] for digest in order], order, backbone, SMALL, fabric, reader)
    inside = len(set(digests[: len(photos)]) & set(read.digests))
    if inside < FEWEST:
        raise RetrievalError(f"Of {count(inside, 'photo')} no list can be made: give at least {FEWEST}.")
    pool = Pool(read.files[:inside], read.digests[:inside], read.digests[inside:])
    return pool, Known.of(read.free, read.features, inside)


def _agree_with_itself(again: Sequence[Rows], pool: Pool, answers: Orders) -> tuple[float, int]:
    """Average Kendall's tau of what a ranker said of lists both ways round, and count them."""
    keys = [(key_of(rows, pool), key_of(reverse(rows), pool), len(rows) - 1) for rows in again]
    taus = [
        kendall_tau(answers[one][:shown], answers[other][:shown][::-1])
        for one, other, shown in keys
        if one in answers and other in answers
    ]
    sound = [tau for tau in taus if np.isfinite(tau)]
    return float(np.mean(sound)) if sound else float("nan"), len(sound)
