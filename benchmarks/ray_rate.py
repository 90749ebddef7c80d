"""How fast a Ray cluster on this machine embeds, beside the built-in pipeline, in one run.

    python benchmarks/ray_rate.py photos --model student/student.onnx

The rounds alternate. `built in` and `Ray` are `index` without and with `--ray`, up to the vectors. Ray is
timed from the first piece made on, for its processes start again for each run: `start` has the seconds until
then. `Ray, two stages` is what its documentation suggests: tasks decode, an actor embeds, and the pixels go
from the ones to the other. Rates are medians, in images a second; ratios are medians of the rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index.build.embed import embed_files
from index.build.ray import FEWEST, FILE, RayCluster, from_text, list_files, open_cluster
from index.embedders.onnx import OnnxEmbedder
from index.images.decode import read_photo, square
from index.images.file import ImageFile
from index.images.sources import find_images

Timed = tuple[float, float]  # images a second, and seconds until the first piece


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    files = find_images([args.photos])
    model = OnnxEmbedder(args.model, "cpu", threads=1)
    rounds: dict[str, list[Timed]] = {"built in": [], "Ray": [], "Ray, two stages": []}
    with open_cluster("auto", "cpu") as cluster, tempfile.TemporaryDirectory() as scratch:
        built_in(files[:64], model)
        for _ in range(args.rounds):
            rounds["built in"].append(built_in(files, model))
            rounds["Ray"].append(one_stage(files, model, cluster, Path(scratch)))
            rounds["Ray, two stages"].append(two_stages(files, model))
    print(f"{len(files)} photos, {args.rounds} rounds\n")
    print("| way | images/s | of the built-in rate (least and most) | start, s |\n|---|---|---|---|")
    for name, runs in rounds.items():
        shares = sorted(one[0] / ours[0] for one, ours in zip(runs, rounds["built in"], strict=True))
        rate, start = (median(column) for column in zip(*runs, strict=True))
        spread = f"{median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
        print(f"| {name} | {rate:.0f} | {spread} | {start:.1f} |")


def built_in(files: Sequence[ImageFile], model: OnnxEmbedder) -> Timed:
    """Embed in threads of this process."""
    began = time.perf_counter()
    for _ in embed_files(files, {"student": model}):
        pass
    return len(files) / (time.perf_counter() - began), 0.0


def one_stage(files: Sequence[ImageFile], model: OnnxEmbedder, cluster: RayCluster, folder: Path) -> Timed:
    """Embed as `--ray` does."""
    began = time.time()
    parts = cluster(files, len(files), {"student": model}, folder, lambda item: True)
    made = len(next(parts).items)
    first = min(piece.stat().st_mtime for piece in folder.glob("*/*.piece"))  # before it came to us
    rest = sum(len(part.items) + len(part.failures) for part in parts)
    assert made + rest == len(files)
    return rest / (time.time() - first), first - began


def two_stages(files: Sequence[ImageFile], model: OnnxEmbedder) -> Timed:
    """Decode in tasks, embed in an actor, a core for each."""
    import ray.data

    rule = model.decode_side, model.side, model.crop, model.reduced
    squares = ray.data.from_arrow(list(list_files(iter(files), FEWEST))).map_batches(
        lambda table: decode(table, *rule),
        batch_format="pyarrow",
        batch_size=FEWEST,
        num_cpus=1,
    )
    rows = squares.map_batches(
        Embed,
        fn_constructor_args=(model.spec,),
        batch_size=FEWEST,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    return timed(len(batch["vectors"]) for batch in rows.iter_batches(batch_size=None))


def timed(parts: Iterable[int]) -> Timed:
    """Time all parts but the first."""
    began = time.perf_counter()
    remaining: Iterator[int] = iter(parts)
    next(remaining)
    first = time.perf_counter()
    return sum(remaining) / (time.perf_counter() - first), first - began


def decode(
    table: pa.Table, decode_side: int, side: int, crop: float, reduced: bool
) -> dict[str, NDArray[np.uint8]]:
    """Make squares of the files of a batch, as the student is shown them."""
    photos = [read_photo(from_text(text), decode_side) for text in table[FILE].to_pylist()]
    return {"squares": np.stack([square(photo.image, side, crop, reduced) for photo in photos])}


class Embed:
    """Holds the session."""

    def __init__(self, spec: str) -> None:
        self.model = OnnxEmbedder(Path(spec), "cpu", threads=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
        """Embed the squares of a batch, eight at a time, as the pipeline does."""
        squares = batch["squares"]
        parts = [self.model.embed(list(squares[start : start + 8])) for start in range(0, len(squares), 8)]
        return {"vectors": np.concatenate(parts)}


if __name__ == "__main__":
    main()
