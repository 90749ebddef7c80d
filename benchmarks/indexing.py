"""How fast images become vectors: this program, what people write themselves, and what the machine allows.

    python benchmarks/indexing.py photos --model student/student.onnx
    python benchmarks/indexing.py photos --model student/student.onnx --large 24 --count 240
    python benchmarks/indexing.py photos --model student/student.onnx --agreement
    python benchmarks/indexing.py photos --model student/student.onnx --memory

All ways run in turn in one process, after a round to warm up; times are medians over the rounds.
`loader` is a torch DataLoader with one worker for each core in front of the student's own network in torch,
`serial` one image after the other through Pillow and ONNX Runtime, both with the settings they come with.
`bound` is what decoding and ONNX Runtime take when each runs alone, spread over all cores. The CPU time is
that of all cores together; on a machine with other work to do it says more than the wall.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from index.build.embed import embed_files
from index.build.openvino import OpenVinoSession
from index.embedders.onnx import OnnxEmbedder
from index.evaluation.metrics import overlap_at_k
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.images.sources import find_images
from index.parallel import CORES

MEGAPIXELS = 12e6  # of a photo of today's telephones
BATCH = 32


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400, help="Photos, spread over all there are.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--large", type=int, default=0, help="Enlarge so many of them to 12 megapixels first."
    )
    parser.add_argument("--agreement", action="store_true", help="Compare with whole decoding instead.")
    parser.add_argument("--memory", action="store_true", help="Measure memory against the number instead.")
    parser.add_argument("--peak", action="store_true", help="Embed all photos, and print the peak of memory.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos = enlarge(choose(args.photos, args.large), Path(scratch)) if args.large else args.photos
        if args.peak:
            print(peak(photos, args.model))
        elif args.memory:
            compare_memory(choose(photos, args.count), args.model, Path(scratch))
        elif args.agreement:
            compare_rankings(choose(photos, args.count), args.model)
        else:
            compare_times(choose(photos, args.count), args.model, args.rounds)


def choose(folder: Path, count: int) -> list[ImageFile]:
    """Take so many photos, spread over all, or all if there are fewer."""
    files = find_images([folder])
    return [files[i] for i in np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)]


def enlarge(files: Sequence[ImageFile], folder: Path) -> Path:
    """Write JPEGs of 12 megapixels."""
    for i, file in enumerate(files):
        image = read_photo(file).image
        scale = (MEGAPIXELS / (image.width * image.height)) ** 0.5
        size = round(image.width * scale), round(image.height * scale)
        image.resize(size, Image.Resampling.LANCZOS).save(folder / f"{i:05}.jpg", quality=90)
    return folder


def compare_times(files: Sequence[ImageFile], path: Path, rounds: int) -> None:
    """Time all ways in turn."""
    model = OnnxEmbedder(path, "cpu", threads=1)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: list(embed_files(files, {"student": model})),
        "loader": make_loader(files, model),
        "serial": make_serial(files, path, model),
        "decoding alone": lambda: decode_alone(files, model),
        "ONNX Runtime alone": make_models_alone(files, model),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}  # seconds, and those of CPUs
    for i in range(rounds + 1):
        for name, way in ways.items():
            began, cpu = time.perf_counter(), cpu_seconds()
            way()
            if i:
                spent[name].append((time.perf_counter() - began, cpu_seconds() - cpu))
    alone = zip(spent["decoding alone"], spent["ONNX Runtime alone"], strict=True)
    spent["bound"] = [(one[0] + two[0], one[1] + two[1]) for one, two in alone]
    print(f"{len(files)} photos, {CORES} cores, median of {rounds} rounds\n")
    print("| way | ms per image | CPU ms per image | images/s | times ours (least and most) |")
    print("|---|---|---|---|---|")
    for name, runs in spent.items():
        shares = sorted(theirs / ours for (theirs, _), (ours, _) in zip(runs, spent["ours"], strict=True))
        wall, cpu = (1e3 * median(column) / len(files) for column in zip(*runs, strict=True))
        spread = f"{median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {1e3 / wall:.0f} | {spread} |")


def cpu_seconds() -> float:
    """CPU time of this process and of those it waited for, in seconds."""
    return sum(os.times()[:4])


def make_loader(files: Sequence[ImageFile], model: OnnxEmbedder) -> Callable[[], object]:
    """A DataLoader and the student's network in torch, as in any tutorial."""
    import torch  # here, so that it is not part of the peak of memory

    from distill.model.backbone import create_backbone
    from distill.model.student import Student

    torch.set_num_threads(CORES)
    backbone = create_backbone(model.metadata["retrieval.model"], "none")
    backbone.keep_stages(backbone.default_stages)
    network = Student(backbone, model.dim).eval()

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int) -> NDArray[np.uint8]:
            return _squash(Image.open(files[i].path), model.side)

    def run() -> list[Any]:
        loader = torch.utils.data.DataLoader(Photos(), BATCH, num_workers=CORES)
        with torch.inference_mode():
            return [network(batch) for batch in loader]

    return run


def make_serial(files: Sequence[ImageFile], path: Path, model: OnnxEmbedder) -> Callable[[], object]:
    """One image after the other."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run() -> list[Any]:
        return [
            session.run(None, {"images": _squash(Image.open(file.path), model.side)[None]}) for file in files
        ]

    return run


def _squash(image: Image.Image, side: int) -> NDArray[np.uint8]:
    return np.array(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def decode_alone(files: Sequence[ImageFile], model: OnnxEmbedder) -> None:
    """Our reading and decoding on all cores."""
    with ThreadPoolExecutor(CORES) as pool:
        for _ in pool.map(lambda file: model.prepare(read_photo(file, model.side)), files):
            pass


def make_models_alone(files: Sequence[ImageFile], model: OnnxEmbedder) -> Callable[[], object]:
    """ONNX Runtime on all cores, in the way that is fastest: a thread for each, and nothing shared."""
    rows = np.stack([model.prepare(read_photo(file, model.decode_side)) for file in files])
    batches = np.array_split(rows, -(-len(rows) // 8))

    def run() -> None:
        with ThreadPoolExecutor(CORES) as pool:
            for _ in pool.map(model.embed, batches):
                pass

    return run


def compare_rankings(files: Sequence[ImageFile], path: Path) -> None:
    """Print how many of the ten nearest stay when JPEGs are decoded smaller, and when OpenVINO embeds."""
    model, other = OnnxEmbedder(path, "cpu"), OnnxEmbedder(path, "cpu")
    ways = {"whole decoding": (model, None), "ONNX Runtime": (model, model.decode_side)}
    if find_spec("openvino"):
        other.session = OpenVinoSession(other.data)
        ways["OpenVINO"] = (other, model.decode_side)
    nearest = {}
    for name, (embedder, side) in ways.items():
        rows = np.concatenate([
            embedder.embed([model.prepare(read_photo(file, side)) for file in files[start : start + BATCH]])
            for start in range(0, len(files), BATCH)
        ])  # fmt: skip
        scores = rows @ rows.T
        np.fill_diagonal(scores, -2)
        nearest[name] = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    for name, found in nearest.items():
        share = 100 * overlap_at_k(nearest["ONNX Runtime"], found).mean()
        print(f"overlap@10 of ONNX Runtime with {name}, {len(files)} photos: {share:.2f} %")


def compare_memory(files: Sequence[ImageFile], path: Path, scratch: Path) -> None:
    """Print the peak of memory for the files, and for ten times as many."""
    peaks = []
    for times in (1, 10):
        folder = scratch / f"times-{times}"
        folder.mkdir()
        for i in range(times):
            for k, file in enumerate(files):
                (folder / f"{i}-{k:06}{file.path.suffix}").symlink_to(file.path)
        command = [sys.executable, __file__, str(folder), "--model", str(path), "--peak"]
        peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(f"{times * len(files)} photos: peak of {peaks[-1]:.1f} MiB", flush=True)
    print(f"growth: {100 * (peaks[1] / peaks[0] - 1):.1f} %")


def peak(folder: Path, path: Path) -> float:
    """Embed a folder, and return the largest memory that this process had, in MiB."""
    for _ in embed_files(find_images([folder]), {"student": OnnxEmbedder(path, "cpu", threads=1)}):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
