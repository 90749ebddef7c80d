"""Students of several budgets, and how their agreement with the teacher grows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distill.distillation import STUDENT, Distilled, Options, distill
from distill.examples import MOST
from distill.held_out import search_again
from distill.report import write_report, write_run
from index.embedder import Embedder, OnnxEmbedder
from index.errors import UsageError
from index.images import ImageFile, find_images
from index.ledger import Ledger
from index.teacher import TeacherSpec


def parse_budgets(text: str) -> list[int]:
    """Read `500` or `100,250,500`; the result is in ascending order.

    Raises:
        UsageError: It is something else.
    """
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(
            f"--budget must be a number or several, such as 100,250,500, not {text!r}."
        ) from None


def distill_curve(
    files: Sequence[ImageFile],
    teacher: Embedder,
    ledger: Ledger,
    out: Path,
    options: Options,
    budgets: Sequence[int],
) -> Distilled:
    """Distil with each budget in turn; each adds queries to those that the one before has paid for.

    The student of the largest budget gets `out` itself, and its variants; the others get folders in it. All
    are measured on the photos that the last one holds out, which none of them learnt from.

    Args:
        files: As for `distill`, like the next three.
        teacher: The model to learn from.
        ledger: Its paid answers.
        out: The student folder.
        options: What and how; the budget in it is not used.
        budgets: In ascending order.

    Returns:
        The student of the largest budget.
    """
    done: list[Distilled] = []
    for budget in budgets:
        seen = done[-1].survey if done and budget <= MOST else None
        if budget == budgets[-1]:
            folder, chosen = out, replace(options, budget=budget)
        else:
            folder, chosen = out / f"budget-{budget}", replace(options, budget=budget, variants=())
        done.append(distill(files, teacher, ledger, folder, chosen, seen))
    last = done[-1]
    if len(done) > 1 and last.lists:
        for earlier in done[:-1]:
            again = search_again(OnnxEmbedder(earlier.folder / STUDENT, "cpu"), last.lists)
            earlier.run["agreement"] = {**last.run["agreement"], "overlap@10": float(again.agreement.mean())}
        last.run["curve"] = [
            {"queried": other.run["queried"], "overlap@10": other.run["agreement"]["overlap@10"]}
            for other in done
        ]
        write_run(out, last.run)
        write_report(out, [other.run for other in done], last.lists)
    return last


def distill_by_name(
    sources: Sequence[Path],
    teacher: TeacherSpec,
    out: Path,
    options: Options,
    budgets: Sequence[int],
) -> Distilled:
    """`distill_curve`, with everything given by its name.

    Args:
        sources: Folders and files.
        teacher: How to reach the teacher. The budget in it is not used.
        out: The student folder.
        options: What and how.
        budgets: In ascending order.

    Raises:
        RetrievalError: As `distill`, and where a source, the teacher or the ledger cannot be used.
    """
    files = find_images(sources)
    model = teacher.open_plain(options.device)
    with teacher.open_ledger(model.key) as paid:
        return distill_curve(files, model, paid, out, options, budgets)
