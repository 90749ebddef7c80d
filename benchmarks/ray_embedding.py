"""How fast a Ray cluster on this machine embeds, against the built-in pipeline.

    python benchmarks/ray_embedding.py photos --model student/student.onnx

Both write into a journal, in turn, in one process, after a round to warm up; starting the cluster is not
counted. The rate of a round on Ray includes the start of its workers: `--count` says over how many photos
that is spread.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from indexing import choose

from index.ahead import CORES
from index.embedder import OnnxEmbedder
from index.filling import embed_missing
from index.images import ImageFile
from index.journal import Journal
from index.ray_embedding import RayCluster, open_cluster


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000, help="Photos, spread over all there are.")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    files, model = choose(args.photos, args.count), OnnxEmbedder(args.model, "cpu", threads=1)
    spent: dict[str, list[float]] = {"built in": [], "Ray": []}
    with open_cluster("auto", "cpu") as cluster:
        for i in range(args.rounds + 1):
            for name, where in (("built in", None), ("Ray", cluster)):
                took = embed(files, model, where)
                if i:
                    spent[name].append(took)
    print(f"{len(files)} photos, {CORES} cores, median of {args.rounds} rounds\n")
    print("| way | images/s | rate by that of the built-in pipeline (least and most) |\n|---|---|---|")
    for name, times in spent.items():
        shares = sorted(ours / theirs for theirs, ours in zip(times, spent["built in"], strict=True))
        spread = f"{median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
        print(f"| {name} | {len(files) / median(times):.0f} | {spread} |")


def embed(files: Sequence[ImageFile], model: OnnxEmbedder, cluster: RayCluster | None) -> float:
    """Embed files into a journal that is thrown away, and return the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "index") as journal:
        journal.start({}, resume=False)
        journal.list_files(files)
        began = time.perf_counter()
        embed_missing(files, {"student": model}, journal, cluster)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
