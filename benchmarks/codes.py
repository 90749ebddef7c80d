"""Binary codes of students: how well they rank at their size, and how fast they are searched.

    python benchmarks/codes.py quality students/*/student --gallery gallery.csv --queries queries.csv \
        --out docs/codes.csv
    python benchmarks/codes.py speed index/data-1/student.npy --folder scratch

`quality` fits codes to the gallery, as `retrieval quantize` does, and ranks as `retrieval evaluate` does:
all of the gallery, and half of it in the other half. What FAISS makes of the same vectors at as many bytes
is scored beside it: product quantization after a random rotation, that of four bits with the first hundred
ordered again by the vectors, RaBitQ after PCA, of which the eight bytes of factors that it adds to each code
are not counted, and plain ITQ. Overlap is with the lists of the student's own vectors. The last columns say
how many bits shift, in %, when a query is changed. `speed` draws a million vectors that crowd together as
those given do, and searches their codes and as many random ones, and the index that the product makes of the
vectors, on one core. Times are of the processor: others disturb them less than the clock.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from changes import CHANGES
from numpy.typing import NDArray
from PIL import Image
from search import Peak, as_searcher, build, draw_gallery, in_turns
from synthetic import CHUNK, PER_CLUSTER, Law
from tables import read_table, write_table

from distill.model.codes import VIEWED, embed_views, fit_codes, rotate_to_signs
from index.embedders.base import embed_many
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import Projection
from index.evaluation.evaluate import read_labels
from index.evaluation.metrics import average_precision, overlap_at_k, rank, recall_at_k
from index.images.decode import decode
from index.io import chunks
from index.stores.faiss.codes import open_ann
from index.stores.faiss.tuning import build_tuned
from index.stores.faiss.vector_index import search_exact
from index.stores.options import SearchTarget
from index.vectors import CODES, pack

COLUMNS = ("student", "searched", "bits", "way", "mAP", "R@1", "overlap@10", *CHANGES)
BITS = (64, 128, 256)
K = 10
RESCORED = 100
EVERY = 5  # of the queries, one is changed in each way
Rows = NDArray[np.float32]  # vectors, or codes as floats
_read: dict[Any, tuple[NDArray[np.uint8], NDArray[Any]]] = {}  # students are shown the same


class Photos:
    """What a student makes of photos, and how well they are found."""

    def __init__(self, student: Path, gallery: Path, queries: Path) -> None:
        """Embed the photos that two CSV files label, some queries changed, and views of the gallery."""
        model = OnnxEmbedder(student / "student.onnx", "cpu", threads=1)
        photos, self.known = read_squares(model, gallery)
        asked, self.wanted = read_squares(model, queries)
        order = np.random.default_rng(0).permutation(len(photos))
        self.known = self.known[order]
        self.gallery, self.queries = (embed_many(model, list(each)) for each in (photos[order], asked))
        self.views = embed_views(model, photos[order[:VIEWED]])
        self.changed = {
            name: embed_many(model, list(read_squares(model, queries, name)[0])) for name in CHANGES
        }
        self.best = rank(self.queries @ self.gallery.T, K)

    def halve(self) -> Self:
        """Let half of the gallery be searched in the other half."""
        half = copy(self)
        middle = len(self.gallery) // 2
        half.gallery, half.known = self.gallery[:middle], self.known[:middle]
        half.queries, half.wanted = self.gallery[middle:], self.known[middle:]
        half.views, half.changed = self.views[:middle], {}
        half.best = rank(half.queries @ half.gallery.T, K)
        return half

    def score(self, ranking: NDArray[np.int64]) -> dict[str, float]:
        """Score `(queries, gallery)` rankings."""
        relevant = self.known[ranking] == self.wanted[:, None]
        asked = relevant.any(axis=1)
        figures = average_precision(relevant)[asked], recall_at_k(relevant, 1)[asked]
        overlap = overlap_at_k(ranking[:, :K], self.best)
        return dict(zip(COLUMNS[4:], map(float, map(np.mean, (*figures, overlap))), strict=False))

    def score_codes(self, mean: Rows, axes: Rows, rescored: int = 0) -> dict[str, float]:
        """Score codes, of which the floats of the query order so many again, and how far they shift."""
        codes, projections = pack((self.gallery - mean) @ axes), project(self.queries, mean, axes)
        ranking = rank(CODES.similarity(pack(projections), codes), None)
        if rescored:
            order_again(ranking, CODES.similarity(projections, codes), rescored)
        bits = projections[::EVERY] > 0
        shifts = {
            name: float((bits != (project(rows, mean, axes) > 0)).mean())
            for name, rows in self.changed.items()
        }
        return self.score(ranking) | shifts


def order_again(ranking: NDArray[np.int64], similarity: Rows, count: int) -> None:
    """Order so many of the first of each ranking by `(queries, gallery)` similarities."""
    first = ranking[:, :count]
    again = rank(np.take_along_axis(similarity, first, 1), None)
    ranking[:, :count] = np.take_along_axis(first, again, 1)


def project(rows: Rows, mean: Rows, axes: Rows) -> Rows:
    """The floats that codes are the signs of."""
    return ((rows - mean) @ axes).astype(np.float32)


def fit_itq(vectors: Rows, bits: int) -> tuple[Rows, Rows]:
    """Fit plain ITQ to vectors: a mean, and axes."""
    space = Projection.fit(vectors, bits)
    flat = project(vectors, space.mean, space.components.T)
    return space.mean, np.matmul(space.components.T, rotate_to_signs(flat))


def score_student(photos: Photos) -> dict[tuple[int, str], dict[str, float]]:
    """Score a student's vectors, its codes, and what FAISS makes of its vectors, by bits and way."""
    gallery, queries = photos.gallery, photos.queries
    dim = gallery.shape[1]
    scores = {(32 * dim, "vectors"): photos.score(rank(queries @ gallery.T, None))}
    for bits in BITS:
        fitted = fit_codes(gallery, bits, photos.views)
        scores[bits, "codes"] = photos.score_codes(*fitted)
        scores[bits, f"codes, {RESCORED} ordered again"] = photos.score_codes(*fitted, RESCORED)
        scores[bits, "ITQ"] = photos.score_codes(*fit_itq(gallery, bits))
        ways = {"PQ": f"RR{dim},PQ{bits // 8}np", "RaBitQ": f"PCA{bits},RaBitQ"}
        ways[f"PQ x4fs, {RESCORED} ordered again by vectors"] = f"RR{dim},PQ{bits // 4}x4fs"
        for way, factory in ways.items():
            index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
            index.train(gallery)
            index.add(gallery)
            ranking = index.search(queries, len(gallery))[1]
            if "vectors" in way:
                order_again(ranking, queries @ gallery.T, RESCORED)
            scores[bits, way] = photos.score(ranking)
    return scores


def read_squares(model: OnnxEmbedder, path: Path, change: str = "") -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Read the photos that a CSV file labels as a student is shown them, or every fifth of them changed."""
    key = path, change, model.side, model.crop, model.reduced
    if key not in _read:
        entries = read_labels(path)[:: EVERY if change else 1]
        data = (Path(entry.file.location).read_bytes() for entry in entries)
        if change:
            data = (CHANGES[change](Image.open(BytesIO(photo)).convert("RGB")) for photo in data)
        squares = [model.prepare(decode(photo, "photo", model.decode_side)) for photo in data]
        _read[key] = np.array(squares), np.array([entry.label for entry in entries])
    return _read[key]


def open_students(args: argparse.Namespace, done: Sequence[dict[str, str]]) -> Iterator[tuple[str, Photos]]:
    """Name the students that a table does not have yet, with what they make of the photos."""
    for student in args.students:
        name = student.parent.name if student.name == "student" else student.name
        if not any(row["student"] == name for row in done):
            yield name, Photos(student, args.gallery, args.queries)


def measure_quality(args: argparse.Namespace) -> None:
    """Fill the table, and print its means."""
    done = read_table(args.out)
    for name, photos in open_students(args, done):
        for searched, part in (("all", photos), ("half", photos.halve())):
            for (bits, way), figures in score_student(part).items():
                rounded = {column: f"{100 * figure:.2f}" for column, figure in figures.items()}
                done.append({"student": name, "searched": searched, "bits": str(bits), "way": way, **rounded})
        write_table(args.out, COLUMNS, done)
    print_means(done, ("searched", "bits", "way"))


def print_means(rows: Sequence[Mapping[str, str]], keys: tuple[str, ...]) -> None:
    """Print the means, over students that differ in their seed alone, of rows that are alike."""
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        seedless = row["student"].rpartition("-")[0]
        groups.setdefault((seedless, *(row[key] for key in keys)), []).append(row)
    for key, alike in groups.items():
        cells = [
            [float(row[column]) for row in alike if row.get(column)]
            for column in ("mAP", "R@1", "overlap@10", *CHANGES)
        ]
        means = (f"{np.mean(cell):.1f}" if cell else "" for cell in cells)
        print(f"| {' | '.join(key)} | {len(alike)} | {' | '.join(means)} |")


def measure_speed(args: argparse.Namespace) -> None:
    """Print the time of one search in each way."""
    args.folder.mkdir(exist_ok=True)
    faiss.omp_set_num_threads(1)
    known = np.load(args.vectors, allow_pickle=False)
    law = Law.fit(known)
    gallery = draw_gallery(law, args.count, args.folder)
    drawn = np.concatenate(list(law.draw(500, max(args.count // PER_CLUSTER, 1), seed=1)))
    need = SearchTarget()
    for bits in (bits for bits in BITS if bits <= gallery.shape[1]):
        mean, axes = fit_codes(known, bits, known)
        codes = np.concatenate([pack((rows - mean) @ axes) for rows in chunks(gallery, CHUNK)])
        queries = pack((drawn - mean) @ axes)
        random: Any = np.random.default_rng(0).integers(0, 256, codes.shape, np.uint8)
        truth = search_exact(queries, codes, K)[0]
        lists, served = build_tuned(codes, need, args.lists)
        found = open_ann(lists, codes).search(queries, K)[0]
        ways = {"flat": open_ann(None, codes), "flat, random codes": open_ann(None, random)}
        ways |= {str(served): open_ann(lists, codes)}
        turns: dict[str, Any] = {name: partial(ann.search, k=K) for name, ann in ways.items()}
        for name, spent in in_turns(turns, queries).items():
            print(f"{bits} bits, {name}: {np.median(spent[:, 1]):.3f} ms", flush=True)
        print(f"{bits} bits, recall@{K} of the lists {(found >= truth[:, -1:]).mean():.3f}", flush=True)
    file = args.folder / f"vectors-{args.count}.faiss"
    served = build(gallery, "auto", need, file, Peak())
    searcher = as_searcher(gallery, file, served)
    spent = in_turns({"": lambda query: searcher.search(query, "student", K)}, drawn)[""]
    print(f"vectors, {served}: {np.median(spent[:, 1]):.3f} ms, {file.stat().st_size / args.count:.1f} bytes")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    quality = commands.add_parser("quality")
    quality.add_argument("students", nargs="+", type=Path, help="student folders")
    quality.add_argument("--gallery", type=Path, required=True, help="path,label of the photos searched")
    quality.add_argument("--queries", type=Path, required=True)
    quality.add_argument("--out", type=Path, default=Path("codes.csv"))
    quality.set_defaults(measure=measure_quality)
    speed = commands.add_parser("speed")
    speed.add_argument("vectors", type=Path, help="student.npy of an index, which the drawn ones resemble")
    speed.add_argument("--count", type=int, default=1_000_000)
    speed.add_argument("--lists", default="BIVF2048", help="FAISS factory of the inverted lists of codes")
    speed.add_argument("--folder", type=Path, required=True, help="keeps the drawn vectors and their index")
    speed.set_defaults(measure=measure_speed)
    args = parser.parse_args()
    args.measure(args)


if __name__ == "__main__":
    main()
