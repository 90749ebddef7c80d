"""Students that go on: photos of another kind later, and a new teacher for an old index.

    python benchmarks/continuing.py clothes.csv clothes-queries.csv gallery.csv queries.csv \
        --teacher new.npz --old-teacher old.npz

Both parts go through the product's own commands. First a student is taught on clothes and topped up with
groceries; then an index of groceries, made with a student of another teacher, is upgraded. The files of
labels are as `folder_labels.py` writes them; teachers are files of vectors, as `asking.py` keeps, or others.
"""

import argparse
import json
from pathlib import Path

from asking import run

from index.evaluation.evaluate import read_labels


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("clothes", "clothes_queries", "gallery", "queries"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--old-teacher", required=True)
    parser.add_argument("--steps", default="1000")
    parser.add_argument("--work", type=Path, default=Path("continuing"))
    args = parser.parse_args()
    work, steps = args.work, ("--steps", args.steps)
    work.mkdir(exist_ok=True)
    kinds = {"clothes": (args.clothes, args.clothes_queries), "groceries": (args.gallery, args.queries)}
    photos = {name: list_photos(labels, work / f"{name}.txt") for name, (labels, _) in kinds.items()}
    ledger = ("--ledger", work / "ledger.sqlite")

    run("distill", photos["clothes"], "--teacher", args.teacher, "--out", work / "first", *ledger, *steps)
    run(
        "distill", photos["groceries"], "--continue", work / "first", "--budget", "100",
        "--out", work / "second", *ledger, *steps,
    )  # fmt: skip
    print("| student | searched in | mAP | R@1 | overlap@10 |\n|---|---|---|---|---|")
    for student in ("first", "second"):
        for name, (labels, queries) in kinds.items():
            index = work / f"{student}-{name}"
            build(photos[name], work / student, index, args.teacher)
            print(f"| {student} | {name} | {score(index, queries, labels)} |", flush=True)

    former, later, index = work / "former", work / "later", work / "upgraded"
    run(
        "distill", photos["groceries"], "--teacher", args.old_teacher, "--out", former,
        "--ledger", work / "former.sqlite", *steps,
    )  # fmt: skip
    build(photos["groceries"], former, index, args.teacher)  # whose lists all three are compared with
    print("| queries by | gallery by | mAP | R@1 | overlap@10 |\n|---|---|---|---|---|")
    print(f"| old student | old student | {score(index, args.queries, args.gallery)} |", flush=True)
    own = ("--ledger", work / "later.sqlite")  # the budget is of all that a ledger holds
    run("upgrade", index, "--teacher", args.teacher, "--out", later, *own, *steps)
    print(f"| new student | old student | {score(index, args.queries, args.gallery)} |", flush=True)
    build(photos["groceries"], later, index, args.teacher, "--update")
    print(f"| new student | new student | {score(index, args.queries, args.gallery)} |")


def list_photos(labels: Path, out: Path) -> Path:
    """List the photos of a file of labels."""
    out.write_text("".join(f"{entry.file.path}\n" for entry in read_labels(labels)), encoding="utf-8")
    return out


def build(photos: Path, student: Path, out: Path, teacher: str, *options: str) -> None:
    """Index photos."""
    run("index", photos, "--model", student / "student.onnx", "--teacher", teacher, "--out", out, *options)


def score(index: Path, queries: Path, labels: Path) -> str:
    """mAP, R@1 and overlap@10 with the teacher, in percent."""
    found = run("evaluate", index, "--queries", queries, "--labels", labels, "--mode", "student", "--json")
    scores = json.loads(found)["student"]
    return " | ".join(f"{100 * scores[name]:.1f}" for name in ("mAP", "R@1", "overlap@10"))


if __name__ == "__main__":
    main()
