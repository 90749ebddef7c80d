"""Binary codes of students: how well they rank at their size, and how fast they are searched.

    python benchmarks/codes.py quality students/*/student --gallery gallery.csv --queries queries.csv \
        --out docs/codes.csv
    python benchmarks/codes.py speed index/data-1/student.npy --folder scratch

`quality` fits codes to the gallery, as `retrieval quantize` does, and ranks as `retrieval evaluate` does.
What FAISS makes of the same vectors at as many bytes is scored beside it: product quantization after a random
rotation, RaBitQ after PCA, of which the eight bytes of factors that it adds to each code are not counted, and
plain ITQ. Overlap is with the lists of the student's own vectors. `speed` draws a million vectors that crowd
together as those given do, and searches their codes and as many random ones, and the index that the product
makes of the vectors, on one core. Times are of the processor: others disturb them less than the clock.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from search import Peak, as_searcher, build, draw_gallery, in_turns
from synthetic import CHUNK, PER_CLUSTER, Law
from tables import read_table, write_table

from distill.model.codes import fit_codes, rotate_to_signs
from index.build.embed import embed_files
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import Projection
from index.evaluation.evaluate import read_labels
from index.evaluation.metrics import average_precision, overlap_at_k, rank, recall_at_k
from index.io import chunks
from index.stores.faiss.codes import open_ann
from index.stores.faiss.tuning import build_tuned
from index.stores.faiss.vector_index import search_exact
from index.stores.options import SearchTarget
from index.vectors import CODES, pack

COLUMNS = ("student", "bits", "way", "mAP", "R@1", "overlap@10")
BITS = (64, 128, 256)
K = 10
RESCORED = 100


def score_student(args: argparse.Namespace, student: Path) -> dict[tuple[int, str], dict[str, float]]:
    """Score a student's vectors, its codes, and what FAISS makes of its vectors, by bits and way."""
    model = OnnxEmbedder(student / "student.onnx", "cpu", threads=1)
    (gallery, known), (queries, wanted) = (embed(model, path) for path in (args.gallery, args.queries))
    best = rank(queries @ gallery.T, K)

    def score(ranking: NDArray[np.int64]) -> dict[str, float]:
        relevant = known[ranking] == wanted[:, None]
        asked = relevant.any(axis=1)
        figures = average_precision(relevant)[asked], recall_at_k(relevant, 1)[asked]
        overlap = overlap_at_k(ranking[:, :K], best)
        return dict(zip(COLUMNS[3:], map(float, map(np.mean, (*figures, overlap))), strict=True))

    dim = gallery.shape[1]
    scores = {(32 * dim, "vectors"): score(rank(queries @ gallery.T, None))}
    for bits in BITS:
        mean, axes = fit_codes(gallery, bits)
        codes, projections = pack((gallery - mean) @ axes), ((queries - mean) @ axes).astype(np.float32)
        ranking = rank(CODES.similarity(pack(projections), codes), None)
        scores[bits, "codes"] = score(ranking)
        first = ranking[:, :RESCORED]
        again = rank(np.take_along_axis(CODES.similarity(projections, codes), first, 1), None)
        ranking[:, :RESCORED] = np.take_along_axis(first, again, 1)
        scores[bits, f"codes, {RESCORED} ordered again"] = score(ranking)
        space = Projection.fit(gallery, bits)
        shift = space.components @ space.mean
        flat, asked = (rows @ space.components.T - shift for rows in (gallery, queries))
        turn = rotate_to_signs(flat)
        plain = CODES.similarity(pack(asked @ turn), pack(flat @ turn))
        scores[bits, "ITQ"] = score(rank(plain, None))
        for way, factory in (("PQ", f"RR{dim},PQ{bits // 8}"), ("RaBitQ", f"PCA{bits},RaBitQ")):
            index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
            index.train(gallery)
            index.add(gallery)
            scores[bits, way] = score(index.search(queries, len(gallery))[1])
    return scores


def embed(model: OnnxEmbedder, path: Path) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Embed the photos that a CSV file labels."""
    entries = read_labels(path)
    label_of = {entry.file.location: entry.label for entry in entries}
    done = list(embed_files([entry.file for entry in entries], {"student": model}))
    labels = np.array([label_of[item.path] for part in done for item in part.items])
    return np.concatenate([part.vectors["student"] for part in done]), labels


def measure_quality(args: argparse.Namespace) -> None:
    """Fill the table, and print its means."""
    done = read_table(args.out)
    for student in args.students:
        name = student.parent.name if student.name == "student" else student.name
        if any(row["student"] == name for row in done):
            continue
        for (bits, way), figures in score_student(args, student).items():
            rounded = {column: f"{100 * figures[column]:.2f}" for column in COLUMNS[3:]}
            done.append({"student": name, "bits": str(bits), "way": way, **rounded})
        write_table(args.out, COLUMNS, done)
    for size, way in dict.fromkeys((row["bits"], row["way"]) for row in done):
        rows = [row for row in done if (row["bits"], row["way"]) == (size, way)]
        means = (f"{np.mean([float(row[column]) for row in rows]):.1f}" for column in COLUMNS[3:])
        print(f"| {way} | {int(size) // 8} | {' | '.join(means)} |")


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
        mean, axes = fit_codes(known, bits)
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
