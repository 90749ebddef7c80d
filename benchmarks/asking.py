"""What asking a teacher brings: students of several teachers and budgets against one that asked nobody.

    python benchmarks/teachers.py teachers demo lite12 mobilenetv2 dinov2 noise
    python benchmarks/asking.py --gallery gallery.csv --queries queries.csv --pool grocery/train \
        --budgets 0,100,500,2640 --seeds 3 --out docs/asking.csv teachers/*

Every student is made, indexed and scored by the product's own commands. Each teacher is asked about every
photo once; its vectors are kept, and stand for it from then on. Budget 0 is the student that asked nobody:
the same photos, size and steps, taught by its own ImageNet network alone (`--recipe zero-answers`), the same
one for all teachers. What asking brings is the overlap with the teacher's lists above that student's, of the
same seed. Runs that the table already holds are not run again.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tables import read_table, write_table

from index.embedders.base import Embedder
from index.embedders.onnx import OnnxEmbedder
from index.embedders.registry import open_embedder
from index.embedders.vectors_file import write_vectors
from index.evaluation.evaluate import read_labels
from index.images.decode import Photo, read_photo
from index.images.file import ImageFile
from index.images.sources import find_images
from index.progress import progress
from index.timing import time_in_turns
from index.vectors import Vectors, scale_to_unit

COLUMNS = (
    "teacher", "recipe", "size", "stages", "budget", "seed", "mAP", "R@1", "overlap@10", "seconds", "ms",
)  # fmt: skip
ZERO = "zero-answers"
QUIET = 0.1  # of the runs that are timed count: those that nothing else disturbed
FEWEST = 100  # answers that a student that learns from none still needs, to be measured on


def keep_vectors(teacher: str, files: Sequence[ImageFile], folder: Path) -> Path:
    """Ask a teacher about every photo, and keep the vectors by content digest; a file of vectors is one."""
    if teacher.endswith((".npz", ".parquet")):
        return Path(teacher)
    path = folder / f"{name_teacher(teacher)}.npz"
    if not path.is_file():
        model = open_embedder(teacher, "auto")
        found: dict[str, NDArray[np.float32]] = {}
        batch = model.calls.batch
        with ThreadPoolExecutor() as pool, progress(len(files), name_teacher(teacher)) as bar:
            for start in range(0, len(files), batch):
                photos = list(pool.map(read_photo, files[start : start + batch]))
                found.update(zip((photo.digest for photo in photos), _ask(model, photos), strict=True))
                bar.update(len(photos))
        vectors = np.stack(list(found.values()))
        write_vectors(path, vectors.shape[1], [(list(found), vectors)])
    return path


def read_vectors(path: Path, digests: Sequence[str]) -> Vectors:
    """Read the unit vectors of all photos from a file of vectors by content digest."""
    with np.load(path, allow_pickle=False) as file:
        places = {digest: row for row, digest in enumerate(file["ids"].tolist())}
        return scale_to_unit(file["vectors"][[places[digest] for digest in digests]])


def _ask(model: Embedder, photos: Sequence[Photo]) -> NDArray[np.float32]:
    return model.embed([model.prepare(photo) for photo in photos])


def name_teacher(teacher: str) -> str:
    """Name a teacher by its file, or by the function of a Python callable."""
    return teacher.rpartition(":")[2] if ".py:" in teacher else Path(teacher).stem


def run(*command: str | Path, uniform: bool = False) -> str:
    """Run `retrieval` with arguments, and return what it prints."""
    program = [str(Path(__file__).with_name("uniform.py"))] if uniform else ["-m", "retrieval"]
    words = [sys.executable, *program, *map(str, command)]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(
    args: argparse.Namespace, vectors: Path, recipe: str, budget: int, seed: int, folder: Path
) -> dict[str, float]:
    """Distil, index and score one student; one that asks nobody is distilled once, for the first teacher."""
    zero = "+".join(["zero", *args.helped])
    made = folder if budget else args.work / f"{zero}-{args.size}-{args.kept}-{seed}"
    student, index = made / "student" / "student.onnx", folder / "index"
    start = perf_counter()
    if budget or not student.is_file():
        _distill(args, vectors, recipe, budget, seed, made)
    seconds = perf_counter() - start
    run("index", args.indexed, "--model", student, "--teacher", vectors, "--out", index)
    labels = ("--queries", args.queries, "--labels", args.gallery)
    scores = json.loads(run("evaluate", index, *labels, "--mode", "student", "--json"))["student"]
    figures = {name: round(100 * scores[name], 2) for name in ("mAP", "R@1", "overlap@10")}
    return {**figures, "seconds": round(seconds), "ms": round(time_one(student), 2)}


def time_one(student: Path) -> float:
    """Time a student for one photo on one core, with ONNX Runtime: milliseconds when little else runs."""
    model = OnnxEmbedder(student, "cpu", threads=1)
    photo = [np.random.default_rng(0).integers(0, 256, (model.side, model.side, 3), np.uint8)]
    return float(time_in_turns([lambda: model.embed(photo)], 300, 30, QUIET)[0])


def _distill(
    args: argparse.Namespace, vectors: Path, recipe: str, budget: int, seed: int, folder: Path
) -> None:
    cut = ["--stages", str(args.stages)] if args.stages else []
    cut += ["--target-ms", str(args.target_ms)] if args.target_ms else []
    cut += ["--steps", str(args.steps)] if args.steps else []
    cut += [part for helper in args.helper for part in ("--helper", helper)]
    folder.mkdir(exist_ok=True)
    run(
        "distill", args.pool, "--teacher", vectors, "--out", folder / "student", "--seed", str(seed),
        "--ledger", folder / "ledger.sqlite", "--recipe", ZERO if not budget else recipe,
        "--budget", str(budget or FEWEST), "--size", str(args.size), *cut, uniform=args.uniform,
    )  # fmt: skip


def main() -> None:
    """Fill the table and print its means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teachers", nargs="+", help="ONNX files, files of vectors, file.py:function")
    parser.add_argument("--gallery", type=Path, required=True, help="path,label of the photos searched")
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True, help="photos to distil on")
    parser.add_argument("--indexed", type=Path, help="photos to search, if not the pool")
    parser.add_argument("--recipes", default="default")
    parser.add_argument("--budgets", default="0,500", help="0 is the student that asks nobody")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--stages", type=int)
    parser.add_argument("--target-ms", type=float, help="to shrink to, while it learns")
    parser.add_argument("--uniform", action="store_true", help="shrink all blocks by the same share")
    parser.add_argument("--steps", type=int, help="of training, if not those that `distill` takes")
    parser.add_argument("--helper", action="append", default=[], help="free network, as `distill` takes it")
    parser.add_argument("--work", type=Path, default=Path("asking"), help="folder for all that is made")
    parser.add_argument("--out", type=Path, default=Path("asking.csv"))
    args = parser.parse_args()
    args.indexed, args.helped = args.indexed or args.pool, list(map(name_teacher, args.helper))
    args.kept = str(args.stages or "default") + (f">{args.target_ms}ms" if args.target_ms else "")
    args.kept += ",uniform" if args.uniform else ""
    args.kept += f",{args.steps}steps" if args.steps else ""
    args.work.mkdir(parents=True, exist_ok=True)

    labelled = [entry.file for path in (args.gallery, args.queries) for entry in read_labels(path)]
    files = [*labelled, *find_images([args.pool])]
    done = read_table(args.out)
    for teacher in args.teachers:
        vectors = keep_vectors(teacher, files, args.work)
        for seed in range(args.seeds):
            for budget in map(int, args.budgets.split(",")):
                for recipe in args.recipes.split(",") if budget else [ZERO]:
                    setting = {
                        "teacher": "+".join([name_teacher(teacher), *args.helped]), "recipe": recipe,
                        "size": str(args.size), "stages": args.kept, "budget": str(budget), "seed": str(seed),
                    }  # fmt: skip
                    if any(setting.items() <= row.items() for row in done):
                        continue
                    folder = args.work / "-".join(setting.values())
                    folder.mkdir(exist_ok=True)
                    figures = measure(args, vectors, recipe, budget, seed, folder)
                    done.append({**setting, **{name: str(value) for name, value in figures.items()}})
                    print(done[-1], flush=True)
                    write_table(args.out, COLUMNS, done)
    print(summarise(done))


def summarise(rows: Sequence[dict[str, str]]) -> str:
    """Markdown: means over seeds, and the gain in overlap above the student that asked nobody."""
    zero = {
        (row["teacher"], row["size"], row["stages"], row["seed"]): float(row["overlap@10"])
        for row in rows
        if row["recipe"] == ZERO
    }
    groups: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in COLUMNS[:5])].append(row)
    names = (*COLUMNS[:5], "seeds", "mAP", "R@1", "overlap@10", "above zero answers")
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for key, members in groups.items():
        cells = [*key, str(len(members))]
        cells += [_mean([float(row[name]) for row in members]) for name in ("mAP", "R@1", "overlap@10")]
        gains = [
            float(row["overlap@10"]) - zero[start]
            for row in members
            if (start := (row["teacher"], row["size"], row["stages"], row["seed"])) in zero
        ]
        lines.append("| " + " | ".join([*cells, _mean(gains)]) + " |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.1f} ± {error:.1f}" if len(values) > 1 else f"{values[0]:.1f}"


if __name__ == "__main__":
    main()
