"""What the best networks at hand can tell of a teacher from so many answers, in closed form: how far to hope.

    python benchmarks/bound.py teachers/mobilenetv2.onnx --networks teachers/demo.onnx teachers/dinov2.onnx \
        --gallery gallery.csv --queries queries.csv

Each is asked about every photo once, as by `asking.py`, which keeps the vectors in the same folder. Answers
are those to photos near the centres of clusters, as `distill` asks about them; kernel ridge regression
predicts the teacher's vectors of all other photos, in the gallery or not, from those of the networks. A
photo's place joins the answer, or the prediction, with what the networks say, at the best of several shares,
chosen *in hindsight* by the figure itself. No network learns; none is small, and no answer is held back.
"""

import argparse
from pathlib import Path

import numpy as np
from asking import keep_vectors, name_teacher, read_vectors
from numpy.typing import NDArray

from distill.selection import order_by_worth
from distill.targets.placement import SHARES
from distill.targets.predictor import Predictor
from index.evaluation.evaluate import read_labels
from index.evaluation.metrics import overlap_at_k, rank
from index.evaluation.rankings import DEPTH
from index.images.file import digest_pool
from index.vectors import Vectors, scale_to_unit


def bound(known: Vectors, teacher: Vectors, size: int, budget: int, seed: int) -> tuple[float, float, float]:
    """Score what `(n, dim)` networks tell of `(n, teacher dim)`; the first `size` rows are the gallery.

    Returns:
        Overlap@10 of the queries with the teacher's lists: of the networks alone, of predictions and answers
        alone, and at the best share.
    """
    truth = search(teacher, size)
    asked = order_by_worth(known[:size], np.zeros(size, bool), budget, "kmeans", seed)[:budget]
    taught = Predictor.fit(known[asked], teacher[asked]).predict(known)
    taught[asked] = teacher[asked]
    mean = teacher[asked].mean(axis=0)
    taught, known = scale_to_unit(taught - mean), scale_to_unit(known - known[:size].mean(axis=0))
    scores = [overlap_at_k(search(join(taught, known, share), size), truth).mean() for share in SHARES]
    return float(scores[0]), float(scores[-1]), float(max(scores))


def join(taught: Vectors, known: Vectors, share: float) -> Vectors:
    """Join what the teacher says with what the networks say."""
    return np.concatenate([np.sqrt(share) * taught, np.sqrt(1 - share) * known], axis=1)


def search(vectors: Vectors, size: int) -> NDArray[np.int64]:
    """Find the first ten of the gallery, the first `size` rows, for each of the queries, the rest."""
    return rank(vectors[size:] @ vectors[:size].T, DEPTH)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("teacher", help="ONNX file, file of vectors, file.py:function")
    parser.add_argument("--networks", nargs="+", required=True, help="the same; none a part of the teacher")
    parser.add_argument("--gallery", type=Path, required=True, help="CSV of path,label: photos to ask about")
    parser.add_argument("--queries", type=Path, required=True, help="CSV of path,label: photos to score with")
    parser.add_argument("--budgets", type=int, nargs="+", default=[100, 500, 2640])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("asking"), help="folder for all that is made")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    gallery, queries = ([entry.file for entry in read_labels(path)] for path in (args.gallery, args.queries))
    digests = digest_pool(gallery + queries)
    teacher, *networks = (
        read_vectors(keep_vectors(model, gallery + queries, args.work), digests)
        for model in (args.teacher, *args.networks)
    )
    known = np.concatenate(networks, axis=1)
    for budget in args.budgets:
        seeds = range(args.seeds if budget < len(gallery) else 1)
        scores = [bound(known, teacher, len(gallery), budget, seed) for seed in seeds]
        cells = [name_teacher(args.teacher), " and ".join(map(name_teacher, args.networks)), str(budget)]
        cells += [f"{100 * mean:.1f}" for mean in np.mean(scores, axis=0)]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
