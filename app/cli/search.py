"""Commands that ask an index: `search`, `evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import Device, Gallery, IndexFolder, Json, LedgerFile, Paid, Student, Teacher
from app.cli.teacher_options import takes_teacher_options
from index.embedders.options import EmbedderOptions
from index.teachers.spec import TeacherSpec


@takes_teacher_options
def search(
    index: Gallery,
    queries: Annotated[list[Path], typer.Argument(help="Photos to search with.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    mode: Annotated[str, typer.Option(help="student, teacher, asymmetric or rerank.")] = "student",
    where: Annotated[
        list[str] | None, typer.Option(help="column=value of the metadata; may repeat.", show_default="all")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only images whose path in the folder starts so.")] = "",
    cut: Annotated[
        float, typer.Option(help="Only results with at least this share of the best similarity.")
    ] = 0.0,
    model: Student = None,
    teacher: Teacher = None,
    budget: Paid = 0,
    ledger: LedgerFile = None,
    device: Device = "auto",
    as_json: Json = False,
    *,
    teacher_options: EmbedderOptions,
) -> None:
    """Find the images most like a photo."""
    from app.output import search_files
    from index.stores.filters import Filter, parse_where

    narrow = Filter(prefix, parse_where(where or ()), cut)
    spec = TeacherSpec(teacher, teacher_options, ledger, budget)
    answers = search_files(index, queries, k, mode, spec, device, narrow, model)
    typer.echo(json.dumps(answers.as_dict()) if as_json else answers.as_text())
    raise typer.Exit(answers.exit_code)


@takes_teacher_options
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
        typer.Option(help="student, teacher, asymmetric, rerank; may be repeated.", show_default="all"),
    ] = None,
    scales: Annotated[
        str,
        typer.Option(
            help="Sizes to embed each query at, such as 1,0.7071,0.5. The gallery stays as it was indexed: "
            "at one scale."
        ),
    ] = "1",
    whiten: Annotated[
        float | None,
        typer.Option(
            help="Whiten queries and gallery, learnt from the gallery without labels: 0 centres, 1 makes all "
            "variances equal, which needs many times more images than dimensions.",
            show_default="not at all",
        ),
    ] = None,
    teacher: Teacher = None,
    budget: Paid = 0,
    ledger: LedgerFile = None,
    device: Device = "auto",
    as_json: Json = False,
    *,
    teacher_options: EmbedderOptions,
) -> None:
    """Measure quality on images of which something is known, and agreement with the teacher."""
    from app.output import format_revisited, format_scores
    from index.evaluation.evaluate import evaluate_by_name
    from index.evaluation.rankings import Options, parse_scales

    options = Options(mode, parse_scales(scales), whiten)
    spec = TeacherSpec(teacher, teacher_options, ledger, budget)
    scores = evaluate_by_name(index, queries, labels, revisited, spec, device, options)
    as_text = format_revisited if revisited else format_scores
    typer.echo(json.dumps(scores) if as_json else as_text(scores))
