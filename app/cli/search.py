"""Commands that ask an index: `search`, `evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import (
    Device,
    Gallery,
    IndexFolder,
    Json,
    LedgerFile,
    Paid,
    Student,
    Teacher,
    TextOptions,
    TextTeacher,
    Tokenizer,
)
from app.cli.teacher_options import TeacherOptions, describe_teacher, describe_text


def search(
    index: Gallery,
    queries: Annotated[
        list[str],
        typer.Argument(help="Photos to search with; or words, with --text-teacher.", show_default=False),
    ],
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    mode: Annotated[str, typer.Option(help="student, teacher, asymmetric or rerank.")] = "student",
    where: Annotated[
        list[str] | None, typer.Option(help="column=value of the metadata. May repeat.", show_default="all")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only images with a path that starts with this.")] = "",
    cut: Annotated[
        float, typer.Option(help="Only results with at least this share of the best similarity.")
    ] = 0.0,
    model: Student = None,
    teacher: Teacher = None,
    teacher_option: TeacherOptions = None,
    text_teacher: TextTeacher = None,
    tokenizer: Tokenizer = None,
    text_option: TextOptions = None,
    budget: Paid = 0,
    ledger: LedgerFile = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find the images most like a photo, or as words tell."""
    from app.output import search_files
    from index.stores.filters import Filter, parse_where

    wanted = Filter(prefix, parse_where(where or ()), cut)
    spec = describe_teacher(teacher, teacher_option, ledger, budget)
    text = describe_text(text_teacher, tokenizer, text_option, ledger, budget)
    answers = search_files(index, queries, k, mode, spec, device, wanted, model, text)
    typer.echo(json.dumps(answers.as_dict()) if as_json else answers.as_text())
    raise typer.Exit(answers.exit_code)


def evaluate(
    index: IndexFolder,
    queries: Annotated[
        Path,
        typer.Option(
            help="CSV file with path,label; with --revisited the folder of the queries.", show_default=False
        ),
    ],
    labels: Annotated[
        Path | None, typer.Option(help="CSV file with path,label of the indexed images.")
    ] = None,
    revisited: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with the ground truth of revisited Oxford or Paris, in place of labels."
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="student, teacher, asymmetric or rerank. May repeat.", show_default="all"),
    ] = None,
    whiten: Annotated[
        float | None,
        typer.Option(
            help="Whiten queries and gallery, fitted to the gallery without labels: 0 centres, 1 makes all "
            "variances equal, which needs many times more images than dimensions.",
            show_default="not at all",
        ),
    ] = None,
    teacher: Teacher = None,
    teacher_option: TeacherOptions = None,
    budget: Paid = 0,
    ledger: LedgerFile = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score labelled queries (mAP, recall) and teacher agreement."""
    from app.output import format_revisited, format_scores
    from index.evaluation.evaluate import evaluate_by_name
    from index.evaluation.rankings import Options

    options = Options(mode, whiten)
    spec = describe_teacher(teacher, teacher_option, ledger, budget)
    scores = evaluate_by_name(index, queries, labels, revisited, spec, device, options)
    as_text = format_revisited if revisited else format_scores
    typer.echo(json.dumps(scores) if as_json else as_text(scores))


EXAMPLES = {
    search: "search idx query.jpg -k 5 --where colour=red",
    evaluate: "evaluate idx --queries queries.csv --labels gallery.csv",
}
