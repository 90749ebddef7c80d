"""An expert teacher: Lite2 at 260 pixels, fine-tuned with the labels of a gallery, as an ONNX file.

    pip install pytorch-metric-learning
    python benchmarks/expert.py --gallery gallery.csv --out teachers/expert.onnx
    python benchmarks/expert.py --gallery gallery.csv --out teachers/expert-half.onnx --every-second

It is the teacher that users pay for: it knows what the student's own network cannot know. Its students see
its vectors and never a label. `--every-second` shows it the products of every second label alone.
"""

import argparse
from pathlib import Path

import numpy as np
from supervised import proxy_anchor, train_with_labels

from distill.fit import open_backbone
from distill.model.export import export_onnx
from distill.options import Options
from distill.pool import extract_features
from distill.training.device import keep_freed_memory, open_fabric
from distill.training.recipes import Recipe
from distill.training.views import stored_side
from index.evaluation.evaluate import read_labels

SIDE = 260
# The lower half keeps its ImageNet weights: it costs most of the time and gains least.
RECIPE = Recipe(freeze=16, rate=5e-4)
OPTIONS = Options(student="tf_efficientnet_lite2", size=SIDE, stages=7, recipe=RECIPE)


def main() -> None:
    """Train the expert and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=Path, required=True, help="path,label of the photos to learn")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file")
    parser.add_argument("--every-second", action="store_true", help="learn every second label alone")
    parser.add_argument("--steps", type=int, default=500)
    args = parser.parse_args()
    keep_freed_memory()
    fabric = open_fabric("auto")
    entries = read_labels(args.gallery)
    if args.every_second:
        learnt = set(sorted({entry.label for entry in entries}, key=lambda label: (len(label), label))[::2])
        entries = [entry for entry in entries if entry.label in learnt]
    backbone = open_backbone(OPTIONS)
    labelled = {entry.file: entry.label for entry in entries}
    pool = extract_features(list(labelled), [""] * len(labelled), backbone, stored_side(SIDE), fabric)
    labels = np.array([labelled[file] for file in pool.files])
    student = train_with_labels(pool, labels, proxy_anchor, args.steps, OPTIONS, fabric)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"model": OPTIONS.student, "weights": f"{backbone.origin}, {args.steps} steps of Proxy-Anchor"}
    print(export_onnx(student, args.out, SIDE, OPTIONS.dim, facts, SIDE / stored_side(SIDE), reduced=True))


if __name__ == "__main__":
    main()
