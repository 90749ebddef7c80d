"""On a machine with a GPU: torch, ONNX Runtime CUDA and FAISS GPU in one process, the main job at small size.

    python benchmarks/gpu_check.py

Without a GPU it says so and exits 0.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import faiss
import numpy as np
import onnxruntime as ort
import torch

from app.sample_photos import make_sample_photos
from distill.model.export import DEMO_TEACHER, export_model
from distill.options import Options, Target
from distill.pipeline import distill
from index.build.pipeline import build_index
from index.device import CUDA, count_gpus
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import TEACHER_SPACE, TeacherSpace
from index.evaluation.evaluate import evaluate_labelled, read_labels
from index.evaluation.rankings import Options as Ranking
from index.images.sources import find_images
from index.search import Searcher
from index.stores.faiss.vector_index import VectorIndex
from index.teachers.ledger import Ledger


def main() -> int:
    """Run the check and print its figures as JSON."""
    if not count_gpus():
        print("No GPU: the driver sees none. Nothing was checked.")
        return 0
    seen = {
        "torch": torch.cuda.is_available() and torch.cuda.get_device_name(0),
        "onnxruntime": CUDA in ort.get_available_providers(),
        "faiss": faiss.get_num_gpus(),
    }
    print(json.dumps(seen))
    if not all(seen.values()):
        print(
            "A GPU is there, but not every library sees it. Install with: pip install '.[gpu,distill,demo]'"
        )
        return 1
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(check(Path(folder)), indent=2))
    return 0


def check(out: Path) -> dict[str, object]:
    """Distil, index and search on the GPU, and compare each step with the CPU.

    Raises:
        AssertionError: A step did not run on the GPU, or disagrees with the CPU.
    """
    make_sample_photos(out / "photos")
    sources = [out / "photos" / "gallery"]
    teacher = OnnxEmbedder(export_model(DEMO_TEACHER, out / "teacher.onnx"), "cuda")
    assert teacher.provider == CUDA
    with Ledger(out / "ledger.sqlite", teacher.key) as ledger:
        options = Options(budget=300, device="cuda")
        run = distill(find_images(sources), teacher, ledger, out / "student", options).run
        small = replace(options, steps=40, target=Target("mflops", 40))
        shrunk = distill(find_images(sources), teacher, ledger, out / "shrunk", small).run
    assert run["training"]["device"].startswith("cuda")

    student = OnnxEmbedder(out / "student" / "student.onnx", "cuda")
    beside = out / "student" / TEACHER_SPACE
    space = TeacherSpace.load(beside) if beside.is_file() else None
    start = perf_counter()
    index = build_index(sources, student, out / "index", teacher, space)
    seconds = perf_counter() - start

    pixels = list(np.random.default_rng(0).integers(0, 256, (64, student.side, student.side, 3), np.uint8))
    on_gpu, on_cpu = (
        student.embed(pixels),
        OnnxEmbedder(out / "student" / "student.onnx", "cpu").embed(pixels),
    )
    difference = float(np.abs(on_gpu - on_cpu).max())
    assert difference < 5e-3, f"ONNX Runtime on the GPU differs by {difference:.2g}"

    vectors = index.vectors("student")
    anns = [VectorIndex(index.ann("student"), vectors, device=device) for device in ("cpu", "cuda")]
    assert "Gpu" in type(anns[1].index).__name__
    here, there = (ann.search(vectors[:100], 10)[1] for ann in anns)
    same = float((here == there).mean())
    assert same > 0.99, f"FAISS on the GPU agrees on {same:.0%} of the results only"

    queries, gallery = (read_labels(out / "photos" / name) for name in ("queries.csv", "gallery.csv"))
    searcher = Searcher(index, student, teacher, "cuda")
    return {
        "train_seconds": run["training"]["seconds"],
        "train_steps": run["options"]["recipe"]["steps"],
        "shrunk": shrunk["student"]["shrunk"],
        "index_images_per_second": round(len(index) / seconds, 1),
        "onnx_difference": difference,
        "faiss_same": same,
        "scores": evaluate_labelled(searcher, queries, gallery, Ranking(["student", "teacher"])),
    }


if __name__ == "__main__":
    sys.exit(main())
