"""Binary codes of students: how well they rank at their size, and how fast they are searched.

    python benchmarks/codes.py quality students/*/student --gallery gallery.csv --queries queries.csv \
        --pool grocery/train --out docs/codes.csv
    python benchmarks/codes.py speed index/data-1/student.npy --folder scratch

`quality` makes codes, indexes and scores by the product's own commands. What FAISS makes of the same vectors
at as many bytes is scored by the same metrics: product quantization (OPQ), RaBitQ after PCA, of which the
eight bytes of factors that it adds to each code are not counted, and plain ITQ. Overlap is with the lists of
the student's own vectors. `speed` draws a million vectors that crowd together as those given do, and searches
their codes and as many random ones, and the index that the product makes of the vectors, on one core. Times
are of the processor: other programs disturb them less than those by the clock.
"""

import argparse
import json
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
from asking import run
from numpy.typing import NDArray
from search import Peak, as_searcher, build, draw_gallery, in_turns
from synthetic import CHUNK, PER_CLUSTER, Law
from tables import read_table, write_table

from distill.model.codes import fit_codes
from index.build.embed import embed_files
from index.embedders.onnx import OnnxEmbedder
from index.evaluation.labelled import read_labels
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


def score_codes(args: argparse.Namespace, student: Path, bits: int) -> dict[str, dict[str, float]]:
    """Codes of a student, with and without ordering again, through the commands."""
    scores = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(student, folder / "student")
        plain = shutil.copyfile(student / "student.onnx", folder / "plain.onnx")
        model, out = folder / "student" / "student.onnx", folder / "index"
        run("quantize", folder / "student", args.pool, "--bits", str(bits))
        for way, depth in (("codes", "0"), ("codes, 100 ordered again", "100")):
            again = ("--update",) if out.exists() else ()
            asked = ("--codes", str(bits), "--rescore", depth, *again)
            run("index", args.pool, "--model", model, "--teacher", plain, "--out", out, *asked)
            labels = ("--queries", args.queries, "--labels", args.gallery, "--mode", "student", "--json")
            scores[way] = json.loads(run("evaluate", out, *labels))["student"]
    return scores


def score_faiss(args: argparse.Namespace, student: Path) -> dict[tuple[int, str], dict[str, float]]:
    """The student's vectors, and what FAISS makes of them."""
    model = OnnxEmbedder(student / "student.onnx", "cpu", threads=1)
    parts = []
    for path in (args.gallery, args.queries):
        entries = read_labels(path)
        label_of = {entry.file.location: entry.label for entry in entries}
        done = list(embed_files([entry.file for entry in entries], {"student": model}))
        labels = np.array([label_of[item.path] for part in done for item in part.items])
        parts.append((np.concatenate([part.vectors["student"] for part in done]), labels))
    (gallery, known), (queries, wanted) = parts
    best = rank(queries @ gallery.T, K)

    def score(similarity: NDArray[np.float32]) -> dict[str, float]:
        ranking = rank(similarity, None)
        relevant = known[ranking] == wanted[:, None]
        asked = relevant.any(axis=1)
        figures = average_precision(relevant)[asked], recall_at_k(relevant, 1)[asked]
        overlap = overlap_at_k(ranking[:, :K], best)
        return dict(zip(COLUMNS[3:], map(float, map(np.mean, (*figures, overlap))), strict=True))

    dim = gallery.shape[1]
    scores = {(32 * dim, "vectors"): score(queries @ gallery.T)}
    for bits in BITS:
        for way, factory in (("OPQ", f"OPQ{bits // 8},PQ{bits // 8}"), ("RaBitQ", f"PCA{bits},RaBitQ")):
            index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
            index.train(gallery)
            index.add(gallery)
            found, ids = index.search(queries, len(gallery))
            similarity = np.full(found.shape, -np.inf, np.float32)
            np.put_along_axis(similarity, ids, found, 1)
            scores[bits, way] = score(similarity)
        itq = faiss.ITQTransform(dim, bits, bits < dim)
        itq.train(gallery)
        scores[bits, "ITQ"] = score(CODES.similarity(pack(itq.apply(queries)), pack(itq.apply(gallery))))
    return scores


def measure_quality(args: argparse.Namespace) -> None:
    """Fill the table, and print its means."""
    done = read_table(args.out)
    for student in args.students:
        name = student.parent.name if student.name == "student" else student.name
        if any(row["student"] == name for row in done):
            continue
        scores = score_faiss(args, student)
        for bits in BITS:
            scores |= {(bits, way): figures for way, figures in score_codes(args, student, bits).items()}
        for (bits, way), figures in scores.items():
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
    quality.add_argument("--pool", type=Path, required=True, help="the photos searched, which codes fit")
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
