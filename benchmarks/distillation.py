"""Recipes against budgets: mean and standard error over seeds, on photos with labels for the score alone.

    python benchmarks/distillation.py --gallery gallery.csv --queries queries.csv --teacher teacher.onnx \
        --recipes default,regression,csd --budgets 250,500 --seeds 3 --out docs/distillation.csv

The teacher is asked about every photo once; its answers stay in --ledger. Runs that the table already holds
are not run again, so that it can be interrupted and widened. `--pool half` distils on a random half of the
gallery and searches the other; `--pool FOLDER` distils on other photos. Two lines of the table are what the
runs are held against: the teacher, and `undistilled`, the ImageNet features of the same trunk. A third, with
`--small-photos`, is the teacher that is shown no more than the student is. `--steps`, `--plain-crops`
and `--weights` change every recipe and are no column: they want a table of their own.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from tables import read_table, write_table
from torch import nn

from distill.ask import TeacherAnswers, ask_teacher
from distill.fit import Fitted, fit_student, open_backbone
from distill.model.backbone import create_backbone
from distill.model.export import count_parameters
from distill.model.student import embed
from distill.options import Options
from distill.pool import Pool, extract_features
from distill.selection import order_by_worth
from distill.training.device import keep_freed_memory, open_fabric
from distill.training.recipes import PLAIN_CROPS, Recipe, find_recipe
from distill.training.views import center_crop, stored_side
from index.embedders.base import Embedder
from index.embedders.registry import open_embedder
from index.evaluation.evaluate import read_labels
from index.evaluation.metrics import average_precision, overlap_at_k, rank, recall_at_k
from index.images.decode import Photo, with_pixels
from index.images.file import ImageFile, digest_pool
from index.images.sources import find_images
from index.progress import progress
from index.teachers.ledger import Ledger

COLUMNS = (
    "pool", "recipe", "select", "stages", "size", "budget", "seed", "parameters", "mAP", "R@1", "overlap@10",
    "asymmetric mAP", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Photos:
    """Photos that were read and answered; `labels` is empty for a pool that nobody labelled."""

    pool: Pool
    vectors: NDArray[np.float32]
    labels: NDArray[np.str_]

    def take(self, rows: NDArray[np.int64]) -> "Photos":
        """Some of them."""
        files, digests = ([which[row] for row in rows] for which in (self.pool.files, self.pool.digests))
        pixels, features = self.pool.pixels[rows], self.pool.features[rows]
        pool = replace(self.pool, files=files, digests=digests, pixels=pixels, features=features)
        return Photos(pool, self.vectors[rows], self.labels[rows])


def read(
    files: Sequence[ImageFile], labels: Sequence[str], args: argparse.Namespace, fabric: Fabric
) -> Photos:
    """Read photos and fetch their answers from the ledger, or from the teacher."""
    backbone = create_backbone(args.student)
    backbone.fold_batch_norm()
    digests = digest_pool(files)
    label = dict(zip(digests, labels, strict=True)) if labels else dict.fromkeys(digests, "")
    distinct = dict(zip(digests, files, strict=True))
    digests = sorted(distinct)
    files = [distinct[digest] for digest in digests]
    pool = extract_features(files, digests, backbone, stored_side(args.size), fabric)
    teacher = open_embedder(args.teacher, "auto")
    with Ledger(args.ledger, teacher.key) as ledger:
        answered = ask_teacher(pool.files, pool.digests, range(len(pool.files)), teacher, ledger, 1 << 40)
    return Photos(pool, answered.vectors, np.array([label[digest] for digest in pool.digests]))


def score(
    gallery: Photos,
    queries: Photos,
    ours: Sequence[NDArray[np.float32]],
    projected: NDArray[np.float32] | None,
) -> dict[str, float]:
    """Quality and agreement, in %, of vectors of the gallery and the queries."""

    def precision(similarity: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        ranking = rank(similarity)
        return ranking, gallery.labels[ranking] == queries.labels[:, None]

    ranking, relevant = precision(ours[1] @ ours[0].T)
    found = relevant.any(axis=1)
    truth = rank(queries.vectors @ gallery.vectors.T, 10)
    figures = {
        "mAP": average_precision(relevant)[found].mean(),
        "R@1": recall_at_k(relevant, 1)[found].mean(),
        "overlap@10": overlap_at_k(ranking[:, :10], truth).mean(),
    }
    if projected is not None:
        figures["asymmetric mAP"] = average_precision(precision(ours[1] @ projected.T)[1])[found].mean()
    return {name: round(100 * float(value), 2) for name, value in figures.items()}


def distil(pool: Photos, options: Options, fabric: Fabric) -> Fitted:
    """Train a student on `options.budget` answers about the pool."""
    backbone = open_backbone(options)
    everything = np.ones(len(pool.vectors), bool)
    order = order_by_worth(pool.pool.features, everything, options.budget, options.select, options.seed)
    rows = np.sort(order[: options.budget])
    answered = TeacherAnswers([pool.pool.digests[row] for row in rows], pool.vectors[rows], 0, 0, 0.0, [])
    return fit_student(pool.pool, answered, backbone, options, fabric)


def embed_photos(student: nn.Module, photos: Photos, size: int, fabric: Fabric) -> NDArray[np.float32]:
    """`(n, dim)` vectors of photos, as the finished student is shown them."""
    return embed(student, center_crop(torch.from_numpy(photos.pool.pixels), size), fabric).numpy()


def parse_arguments(
    description: str | None, add: Callable[[argparse.ArgumentParser], None]
) -> argparse.Namespace:
    """The arguments that benchmarks on labelled photos share, and those that `add` adds."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--ledger", type=Path, default=Path("benchmark.sqlite"))
    parser.add_argument("--student", default=Options.student)
    parser.add_argument("--size", type=int, default=Options.size)
    parser.add_argument("--seeds", type=int, default=3)
    add(parser)
    return parser.parse_args()


def read_labelled(args: argparse.Namespace, fabric: Fabric) -> tuple[Photos, Photos]:
    """The gallery and the queries."""
    labelled = [read_labels(path) for path in (args.gallery, args.queries)]
    gallery, queries = (
        read([entry.file for entry in entries], [entry.label for entry in entries], args, fabric)
        for entries in labelled
    )
    return gallery, queries


def run(pool: Photos, gallery: Photos, queries: Photos, options: Options, fabric: Fabric) -> dict[str, float]:
    """Distil from `options.budget` answers about the pool, and search the gallery with the queries."""
    fitted = distil(pool, options, fabric)
    ours = [embed_photos(fitted.student, photos, options.size, fabric) for photos in (gallery, queries)]
    figures = score(gallery, queries, ours, fitted.placement.space.project(gallery.vectors))
    return {"parameters": count_parameters(fitted.student), **figures, "seconds": round(fitted.seconds, 1)}


def search_undistilled(
    gallery: Photos, queries: Photos, options: Options, fabric: Fabric
) -> dict[str, float]:
    """Search with the ImageNet features of the trunk, as it is before it learns from the teacher."""
    backbone = create_backbone(options.student, options.weights)
    backbone.keep_stages(options.stages or backbone.default_stages)
    features = [embed_photos(backbone, photos, options.size, fabric) for photos in (gallery, queries)]
    ours = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in features]
    return {"parameters": count_parameters(backbone), **score(gallery, queries, ours, None)}


def search_with_teacher(
    gallery: Photos, queries: Photos, options: Options, fabric: Fabric
) -> dict[str, float]:
    """Search with the teacher's own vectors, at a teacher's price."""
    return score(gallery, queries, (gallery.vectors, queries.vectors), None)


def search_small_photos(
    gallery: Photos, queries: Photos, options: Options, fabric: Fabric, teacher: Embedder
) -> dict[str, float]:
    """Search with the teacher when it is shown no more than the student is.

    How far it then agrees with itself bounds what a student of this size can be asked for.
    """

    def look_again(photos: Photos) -> NDArray[np.float32]:
        small = center_crop(torch.from_numpy(photos.pool.pixels), options.size)
        vectors = []
        with progress(len(small), "small photos") as bar:
            for chunk in small.split(teacher.calls.batch):
                images = map(Image.fromarray, chunk.numpy())
                shown = [with_pixels(Photo("", b"", "", image, *image.size), image) for image in images]
                vectors.append(teacher.embed([teacher.prepare(photo) for photo in shown]))
                bar.update(len(chunk))
        return np.concatenate(vectors)

    return score(gallery, queries, (look_again(gallery), look_again(queries)), None)


# What runs are held against, by the name in the table.
REFERENCES = {"teacher": search_with_teacher, "undistilled": search_undistilled}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which runs fill the table."""
    parser.add_argument("--pool", default="gallery", help="gallery, half, or a folder")
    parser.add_argument("--stages", type=int)
    parser.add_argument("--select", default=Options.select)
    parser.add_argument("--recipes", default="default")
    parser.add_argument("--budgets", default="500")
    parser.add_argument("--steps", type=int, help="for 500 answers, if not the recipe's own")
    parser.add_argument("--plain-crops", action="store_true", help="with every recipe")
    parser.add_argument("--weights", default=Options.weights, help="none starts from random ones")
    parser.add_argument("--small-photos", action="store_true", help="also show these to the teacher")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("distillation.csv"))


def adapt(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe, shorter or with narrower views if that was asked for."""
    if args.steps:
        recipe = replace(recipe, steps=args.steps)
    return replace(recipe, **PLAIN_CROPS) if args.plain_crops else recipe


def main() -> None:
    """Fill the table and print its means."""
    args = parse_arguments(__doc__, add_arguments)
    keep_freed_memory()
    fabric = open_fabric("auto")
    gallery, queries = read_labelled(args, fabric)
    pool = gallery
    if args.pool == "half":
        shuffled = np.random.default_rng(0).permutation(len(gallery.vectors))
        pool, gallery = (gallery.take(np.sort(part)) for part in np.array_split(shuffled, 2))
    elif args.pool != "gallery":
        pool = read(find_images([Path(args.pool)]), [], args, fabric)

    references = dict(REFERENCES)
    if args.small_photos:
        teacher = open_embedder(args.teacher, "auto")
        references["teacher-small-photos"] = partial(search_small_photos, teacher=teacher)
    done = read_table(args.out)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    asked = product(seeds, map(int, args.budgets.split(",")), args.recipes.split(","))
    for seed, budget, recipe in [*((0, 0, name) for name in references), *asked]:
        setting = {
            "pool": Path(args.pool).name, "recipe": recipe, "select": args.select,
            "stages": str(args.stages or "default"), "size": str(args.size), "budget": str(budget),
            "seed": str(seed),
        }  # fmt: skip
        if any(setting.items() <= row.items() for row in done):
            continue
        options = Options(
            student=args.student, weights=args.weights, size=args.size, stages=args.stages,
            select=args.select, seed=seed,
        )  # fmt: skip
        if recipe in references:
            figures = references[recipe](gallery, queries, options, fabric)
        else:
            options = replace(options, budget=budget, recipe=adapt(find_recipe(recipe), args))
            figures = run(pool, gallery, queries, options, fabric)
        row = {**setting, **{name: str(value) for name, value in figures.items()}}
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)
        done.append(row)
        write_table(args.out, COLUMNS, done)
    print(summarise(done))


def summarise(rows: Sequence[dict[str, str]]) -> str:
    """Markdown: mean ± standard error over the seeds of each setting."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in COLUMNS[:6])].append(row)
    measured = COLUMNS[8:]
    lines = ["| " + " | ".join((*COLUMNS[:6], "seeds", *measured)) + " |", "|---" * (7 + len(measured)) + "|"]
    for key, members in groups.items():
        cells = [*key, str(len(members))]
        for name in measured:
            values = np.array([float(row.get(name) or "nan") for row in members])
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            cells.append(f"{values.mean():.1f} ± {error:.1f}" if len(values) > 1 else f"{values.mean():.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
