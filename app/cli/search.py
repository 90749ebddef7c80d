"""Commands that ask an index: `search`, `evaluate`, `duplicates`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.cli import options as shared
from app.cli.options import Several, describe_either, describe_text, option

REVISITED = "JSON file with the ground truth of revisited Oxford or Paris, in place of labels."
WHITEN = (
    "Whiten queries and gallery, fitted to the gallery without labels: 0 centres, 1 makes all variances "
    "equal, which needs many times more images than dimensions."
)
RADIUS = "Cosine distance up to which images are near-duplicates."
USUAL_RADIUS = "half of that within which 95 % of the images have fewer than five others"


def search(
    index: shared.Gallery,
    queries: Annotated[
        list[str], typer.Argument(help="Photos to search with; or words, with --text-teacher.")
    ],
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    mode: Annotated[str, option("student, teacher, asymmetric or rerank.")] = "student",
    where: Annotated[Several, option("column=one,other or 'price<20'. May repeat.", False)] = None,
    like: Annotated[Several, option("A photo to find more of. May repeat.", False)] = None,
    unlike: Annotated[Several, option("A photo to find less of. May repeat.", False)] = None,
    prefix: Annotated[str, option("Only images with a path that starts with this.")] = "",
    cut: Annotated[float, option("Drop results below this share of the best.", False)] = 0.0,
    model: shared.Student = None,
    teacher: shared.Teacher = None,
    ranker: shared.Ranker = None,
    teacher_option: shared.TeacherOptions = None,
    text_teacher: shared.TextTeacher = None,
    tokenizer: shared.Tokenizer = None,
    text_option: shared.TextOptions = None,
    budget: shared.Paid = 0,
    ledger: shared.LedgerFile = None,
    device: shared.Device = "auto",
    as_json: shared.Json = False,
) -> None:
    """Find the images most like a photo, or that match words."""
    from app.output import search_files
    from index.stores.filters import Filter, parse_where

    wanted = Filter(prefix, parse_where(where or ()), cut)
    spec, judge = describe_either(teacher, ranker, teacher_option, ledger, budget, [mode])
    text = describe_text(text_teacher, tokenizer, text_option, ledger, budget)
    answers = search_files(
        index, queries, k, mode, spec, device, wanted, model, text, like or (), unlike or (), judge
    )
    typer.echo(json.dumps(asdict(answers)) if as_json else answers)
    raise typer.Exit(int(any(answer.error for answer in answers.queries)))


def evaluate(
    index: shared.IndexFolder,
    queries: Annotated[Path, option("CSV file with path,label; with --revisited the folder of the queries.")],
    labels: Annotated[Path | None, option("CSV file with path,label of the indexed images.")] = None,
    revisited: Annotated[Path | None, option(REVISITED)] = None,
    mode: Annotated[Several, option("student, teacher, asymmetric or rerank. May repeat.", "all")] = None,
    whiten: Annotated[float | None, option(WHITEN, "not at all")] = None,
    teacher: shared.Teacher = None,
    ranker: shared.Ranker = None,
    teacher_option: shared.TeacherOptions = None,
    budget: shared.Paid = 0,
    ledger: shared.LedgerFile = None,
    device: shared.Device = "auto",
    as_json: shared.Json = False,
) -> None:
    """Score labelled queries (mAP, recall) and teacher agreement."""
    from app.output import format_revisited, format_scores
    from index.evaluation.evaluate import evaluate_by_name
    from index.evaluation.rankings import Options

    options = Options(mode, whiten)
    spec, judge = describe_either(teacher, ranker, teacher_option, ledger, budget, mode)
    scores = evaluate_by_name(index, queries, labels, revisited, spec, device, options, judge)
    as_text = format_revisited if revisited else format_scores
    typer.echo(json.dumps(scores) if as_json else as_text(scores))


def duplicates(
    index: shared.Gallery,
    space: Annotated[str, option("Whose vectors: student or teacher.")] = "student",
    radius: Annotated[float | None, option(RADIUS, USUAL_RADIUS)] = None,
    as_json: shared.Json = False,
) -> None:
    """List groups of near-duplicates; embeds nothing."""
    from index.duplicates import list_duplicates

    found = list_duplicates(index, space, radius)
    typer.echo(json.dumps(asdict(found)) if as_json else found)


EXAMPLES = {
    search: "search idx query.jpg -k 5 --where colour=red",
    evaluate: "evaluate idx --queries queries.csv --labels gallery.csv",
    duplicates: "duplicates idx --radius 0.02",
}
