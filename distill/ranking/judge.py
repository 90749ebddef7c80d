"""From a teacher that only ranks to a file of vectors: choose lists, ask, learn, tell how well, write."""

import json
from collections.abc import Sequence
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


def judge(
    photos: Sequence[Source],
    ranker: Ranker,
    ledger: Ledger,
    budget: int,
    out: Path,
    queries: Sequence[Source] = (),
    device: str = "auto",
    seed: int = 0,
) -> str:
    """Ask a ranker about lists of photos, learn its orders, and write vectors of all by content digest.

    Queries get a vector too, and are asked about in no list. The budget is how many lists may ever be asked
    about; `out` is an .npz or .parquet file. Returns what came of it, for people.

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
    own, times = _agree_with_itself(again, pool, twice)
    if times and own < LEAST_AGREEMENT:
        raise RetrievalError(
            f"{ranker.name} contradicts itself: Kendall's tau is {own:.2f} over {count(times, 'list')} asked "
            f"again in reverse, and {LEAST_AGREEMENT} is the least to learn from. Nothing more was asked. "
            "Give another ranker, or photos that it can tell apart."
        )
    answers, failed = ask_lists(lists, pool, ranker, ledger, budget)
    found = [rows for rows in lists if key_of(rows, pool) in answers]
    for failure in (failures + failed)[:NAMED]:
        say(f"No answer about {failure.path}: {failure.reason}.")
    if not found:
        raise RetrievalError(f"{ranker.name} answered about no list. Check it, the photos and --budget.")
    told = Answered.of(found, [answers[key_of(rows, pool)] for rows in found])
    say(f"Learning from {count(len(found), 'list')}.")
    held = hold_out([pool.digests[rows[0]] for rows in found], HELD_OUT)
    learnt = learn(known, told.take(~held), seed)
    before, after = (Agreement.of(vectors, told.take(held)) for vectors in (known.start, learnt.vectors))
    remarks, gain = "not measured", "not measured: too few lists"
    if after.lists:
        remarks = f"Kendall's tau and top-1 {after} on {count(after.lists, 'held-out list')}"
        gain = f"{before} before (the free network), {after} after; n = {after.lists}"
    how = "learnt from the orders of" if learnt.changed else "the free network's, nothing was learnt from"
    # Lists that bore no map out would teach the student noise.
    used = [rows for rows, left in zip(found, held, strict=True) if not left and learnt.pull is not None]
    notes = {REMARKS: f"; {how} {ranker.name}, {remarks}", RANKER: json.dumps(ranker.facts)}
    notes[LISTS] = json.dumps([_as_note(rows, pool, answers) for rows in used])
    write_vectors(out, known.start.shape[1], [([*pool.digests, *pool.others], learnt.vectors)], notes)
    ceiling = f"{own:.3f} (n = {times})" if times else "not asked"
    nothing = "\nNothing was learnt that lists left out bear out: the vectors are the free network's."
    return (
        f"{out}: vectors of {count(len(known.start), 'photo')}, from {count(len(found), 'list')}; "
        f"{len(lists) - len(found)} without an answer.\n"
        f"Kendall's tau and top-1 with the ranker on held-out lists: {gain}.\n"
        f"The ranker with itself, asked again in reverse: {ceiling}.{'' if learnt.changed else nothing}"
    )


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
