"""Measure how well labelled photos are found by words, with a stand-in for the text model of a teacher.

python benchmarks/text.py idx --vectors asking/demo.npz --gallery gallery.csv --queries queries.csv

There is no text model of the teachers here, so one is made up: the vector of a class is the mean of what the
teacher says of the class's query photos, moved by a gap as wide as that between the texts and images of CLIP.
The vectors of other words are those of single query photos, moved as far. It tells what is lost between the
teacher and its student, not how well a text model knows the classes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.embedders.teacher_space import TEACHER_SPACE, TeacherSpace
from index.evaluation.evaluate import read_labels
from index.evaluation.metrics import overlap_at_k
from index.io import content_digest
from index.search import RERANK, Searcher, open_searcher
from index.text.models import Text, TextQueries

GAP, KEPT = 0.8, 0.6  # length of the gap; how much of the images' mean the texts share


class StandIn:
    """Looks the vectors of words up."""

    name = "stand-in"

    def __init__(self, photos: NDArray[np.float32], labels: NDArray[np.str_], seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._photos, self._labels, self._mean = photos, labels, photos.mean(axis=0)
        gap = self._random.normal(size=photos.shape[1])
        self._gap = GAP * gap / np.linalg.norm(gap)

    def prepare(self, text: Text) -> str:
        """Take the words; those of a class are its label."""
        return text.words

    def embed(self, batch: list[str]) -> NDArray[np.float32]:
        """Map n words to `(n, dim)` float32 unit rows."""
        rows = np.array([self._of(word) for word in batch]) - (1 - KEPT) * self._mean + self._gap
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _of(self, word: str) -> NDArray[np.float32]:
        if len(photos := self._photos[self._labels == word]):
            return photos.mean(axis=0)
        return self._photos[self._random.integers(len(self._photos))]


def label_digests(file: Path) -> dict[str, str]:
    """Read the label of each photo of a CSV file, by its content digest."""
    return {content_digest(entry.file.read()[0]): entry.label for entry in read_labels(file)}


def rankings(searcher: Searcher, classes: list[str], mode: str) -> NDArray[np.int64]:
    """Search for every class by its words: `(classes, gallery)` ids."""
    depth = 100 if mode == RERANK else len(searcher.index)
    found = [searcher.find_text(Text(label), mode, depth).results.ids[0] for label in classes]
    return np.array(found)


def main() -> None:
    """Print a line for each mode, and for each way to centre the texts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path, help="made with --teacher")
    parser.add_argument("--vectors", type=Path, required=True, help="the teacher's, by content digest")
    parser.add_argument("--gallery", type=Path, required=True, help="path,label of the photos searched")
    parser.add_argument("--queries", type=Path, required=True, help="path,label of others")
    parser.add_argument("--space", type=Path, help=f"{TEACHER_SPACE}, where the index has none")
    given = parser.parse_args()
    with np.load(given.vectors) as arrays:
        known = dict(zip(arrays["ids"].tolist(), arrays["vectors"], strict=True))
    queries, gallery = map(label_digests, (given.queries, given.gallery))
    rows = np.array([known[digest] for digest in queries])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    searcher = open_searcher(given.index, device="cpu", with_teacher=False)
    labels = np.array([gallery[item.digest] for item in searcher.index.items])
    classes = sorted(set(queries.values()) & set(labels.tolist()))
    space = TeacherSpace.load(given.space or searcher.index.companion(TEACHER_SPACE))
    model = StandIn(rows, np.array(list(queries.values())))
    searcher.text = text = TextQueries(model, rows.shape[1], space)  # type: ignore[arg-type]
    truth = rankings(searcher, classes, "teacher")

    def show(name: str, mode: str) -> None:
        found = rankings(searcher, classes, mode)
        right = labels[found] == np.array(classes)[:, None]
        overlap = overlap_at_k(found[:, :10], truth[:, :10]).mean()
        print(f"{name:28} {100 * right[:, :10].mean():12.1f} {100 * overlap:12.1f}")

    print(f"{'searched in':28} {'right of 10':>12} {'as teacher':>12}")
    for mode in searcher.text_modes:
        show(mode, mode)
    for name, mean in (("no mean", 0 * space.mean), ("the images' mean", space.mean)):
        text.__dict__["_centred"] = replace(space, mean=mean)
        show(f"student, less {name}", "student")


if __name__ == "__main__":
    main()
