"""Distillation without labels against training with labels: the same student, images, views and steps.

    pip install pytorch-metric-learning
    python benchmarks/supervised.py --gallery gallery.csv --queries queries.csv --teacher teacher.onnx \
        --counts 100,250,500,all --out supervised.csv

`--split unseen` trains on the photos of every second label and searches the photos of the others; `--split
seen` trains on photos of all labels and searches for the same ones.
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distillation import Photos, distil, embed_photos, parse_arguments, read_labelled, score
from lightning_fabric import Fabric
from numpy.typing import NDArray
from pytorch_metric_learning import distances, losses, miners
from torch import Tensor

from distill.fit import open_backbone
from distill.model.student import Student
from distill.options import Options
from distill.pool import Pool
from distill.training.device import keep_freed_memory, open_fabric
from distill.training.loop import one_cycle
from distill.training.recipes import steps_for
from distill.training.views import center_crop, random_view
from index.embedders.teacher_space import TeacherSpace
from index.progress import progress

PER_LABEL = 4  # photos of a label in a batch, so that there are pairs
COLUMNS = ("split", "method", "count", "seed", "mAP", "R@1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which runs fill the table."""
    parser.add_argument("--split", choices=("unseen", "seen"), default="unseen")
    parser.add_argument("--methods", default="distilled,contrastive,proxy-anchor")
    parser.add_argument("--counts", default="100,250,500,all")
    parser.add_argument("--out", type=Path, default=Path("supervised.csv"))


def main() -> None:
    """Fill the table, one line a run."""
    args = parse_arguments(__doc__, add_arguments)
    keep_freed_memory()
    fabric = open_fabric("auto")
    gallery, queries = read_labelled(args, fabric)
    pool = gallery
    if args.split == "unseen":
        second = sorted(set(gallery.labels), key=lambda label: (len(label), label))[::2]  # 0, 2, 4, ...
        pool = gallery.take(np.flatnonzero(np.isin(gallery.labels, second)))
        gallery, queries = (
            photos.take(np.flatnonzero(~np.isin(photos.labels, second))) for photos in (gallery, queries)
        )
    print("teacher", score(gallery, queries, (gallery.vectors, queries.vectors), None), flush=True)
    for seed in range(args.seeds):
        for count in args.counts.split(","):
            wanted = len(pool.vectors) if count == "all" else int(count)
            for method in args.methods.split(","):
                options = replace(Options(student=args.student, size=args.size), budget=wanted, seed=seed)
                student = METHODS[method](pool, options, fabric)
                ours = [embed_photos(student, photos, options.size, fabric) for photos in (gallery, queries)]
                figures = score(gallery, queries, ours, None)
                row = [args.split, method, wanted, seed, figures["mAP"], figures["R@1"]]
                print(*row, flush=True)
                _append(args.out, row)


def supervise(make_loss: Callable[[int, int], Callable[[Tensor, Tensor], Tensor]]) -> Callable[..., Student]:
    """Training on `options.budget` labelled photos, chosen at random, with a loss of the field."""

    def train(pool: Photos, options: Options, fabric: Fabric) -> Student:
        rng = np.random.default_rng(options.seed)
        rows = rng.permutation(len(pool.vectors))[: options.budget]
        steps = steps_for(options.budget, options.recipe)
        return train_with_labels(pool.take(rows).pool, pool.labels[rows], make_loss, steps, options, fabric)

    return train


def train_with_labels(
    pool: Pool,
    labels: NDArray[np.str_],
    make_loss: Callable[[int, int], Callable[[Tensor, Tensor], Tensor]],
    steps: int,
    options: Options,
    fabric: Fabric,
) -> Student:
    """Train a student on labelled photos, from what its ImageNet network says of them."""
    torch.manual_seed(options.seed)
    recipe, rng = options.recipe, np.random.default_rng(options.seed)
    backbone = open_backbone(options)
    backbone.keep_stages(options.stages or backbone.default_stages)
    student = Student(backbone, options.dim)
    images = torch.from_numpy(pool.pixels)
    start = TeacherSpace.fit(pool.free, options.dim).project(pool.free)
    student.fit(center_crop(images, options.size), torch.from_numpy(start), recipe.ridge, fabric)
    backbone.freeze_early(recipe.freeze)
    _, numbers = np.unique(labels, return_inverse=True)
    loss = make_loss(int(numbers.max()) + 1, options.dim)
    proxies = list(loss.parameters()) if isinstance(loss, torch.nn.Module) else []
    groups = [
        {"params": [p for p in student.parameters() if p.requires_grad], "lr": recipe.rate},
        {"params": proxies, "lr": 100 * recipe.rate},  # as its authors train them
    ]
    optimizer: Any = torch.optim.AdamW([group for group in groups if group["params"]])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, steps))
    model, optimizer = fabric.setup(student, optimizer)
    model.train()
    with progress(steps, "train", "step") as bar:
        for _ in range(steps):
            batch = draw_pairs(numbers, recipe.batch, rng)
            seen = fabric.to_device(images[batch])
            views = random_view(seen, options.size, recipe.shown, recipe.turn, recipe.flip)
            fabric.backward(loss(model(views), torch.from_numpy(numbers[batch]).to(fabric.device)))
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            bar.update()
    return student.eval()


def draw_pairs(labels: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of a batch: a few photos each of random labels."""
    rows: list[int] = []
    for label in rng.permutation(labels.max() + 1):
        members = np.flatnonzero(labels == label)
        rows += rng.choice(members, min(PER_LABEL, len(members)), replace=False).tolist()
        if len(rows) >= size:
            break
    return np.array(rows[:size])


def contrastive(labels: int, dim: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Contrastive loss of cosines on all pairs of a label and the hardest others (Radenovic et al. 2019)."""
    cosine = distances.CosineSimilarity()
    loss = losses.ContrastiveLoss(pos_margin=1.0, neg_margin=0.3, distance=cosine)
    # The hardest pairs of a label too, instead of all, made it collapse.
    pairs = miners.BatchEasyHardMiner("all", "hard", distance=cosine)
    return lambda vectors, own: loss(vectors, own, pairs(vectors, own))


def proxy_anchor(labels: int, dim: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Proxy-Anchor (Kim et al. 2020), a learnt vector for each label."""
    return losses.ProxyAnchorLoss(labels, dim)


METHODS: dict[str, Callable[[Photos, Options, Fabric], Student]] = {
    "distilled": lambda *run: distil(*run).student,
    "contrastive": supervise(contrastive),
    "proxy-anchor": supervise(proxy_anchor),
}


def _append(path: Path, row: list[Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(row)


if __name__ == "__main__":
    main()
