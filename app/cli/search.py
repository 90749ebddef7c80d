"""Commands that ask an index: `search`, `evaluate`, `duplicates`, `serve`."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.cli import options as shared
from app.cli.options import describe_either, describe_text, option
from index.errors import UsageError


def search(
    index: shared.Gallery,
    queries: Annotated[
        list[str], typer.Argument(help="Photos to search with; or words, with --text-teacher.")
    ],
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    mode: Annotated[str, option("student, teacher, asymmetric or rerank.")] = "student",
    where: Annotated[list[str] | None, option("column=one,other or column<20. May repeat.", False)] = None,
    like: Annotated[list[str] | None, option("A photo to find more of. May repeat.", False)] = None,
    unlike: Annotated[list[str] | None, option("A photo to find less of. May repeat.", False)] = None,
    prefix: Annotated[str, option("Only images with a path that starts with this.")] = "",
    cut: Annotated[float, option("Least share of the best score.")] = 0.0,
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
    raise typer.Exit(answers.exit_code)


def evaluate(
    index: shared.IndexFolder,
    queries: Annotated[Path, option("CSV file with path,label; with --revisited the folder of the queries.")],
    labels: Annotated[Path | None, option("CSV file with path,label of the indexed images.")] = None,
    revisited: Annotated[
        Path | None,
        option("JSON file with the ground truth of revisited Oxford or Paris, in place of labels."),
    ] = None,
    mode: Annotated[
        list[str] | None, option("student, teacher, asymmetric or rerank. May repeat.", "all")
    ] = None,
    whiten: Annotated[
        float | None,
        option(
            "Whiten queries and gallery, fitted to the gallery without labels: 0 centres, 1 makes all "
            "variances equal, which needs many times more images than dimensions.",
            "not at all",
        ),
    ] = None,
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
    radius: Annotated[
        float | None,
        option(
            "Cosine distance up to which images are near-duplicates.",
            "half of that within which 95 % of the images do not have five others",
        ),
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """List groups of near-duplicates; embeds nothing."""
    from index.duplicates import list_duplicates

    found = list_duplicates(index, space, radius)
    typer.echo(json.dumps(asdict(found)) if as_json else found)


def serve(
    index: shared.Gallery,
    model: shared.Student = None,
    teacher: shared.Teacher = None,
    ranker: shared.Ranker = None,
    teacher_option: shared.TeacherOptions = None,
    text_teacher: shared.TextTeacher = None,
    tokenizer: shared.Tokenizer = None,
    text_option: shared.TextOptions = None,
    budget: shared.Paid = 0,
    ledger: shared.LedgerFile = None,
    host: Annotated[str, option("Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, option("Port; 0 takes a free one.")] = 7860,
    auth: Annotated[
        str,
        typer.Option(
            envvar="RETRIEVAL_AUTH",
            help="user:password that every request must bring. Better set the environment variable: other "
            "users of this machine can see command lines.",
            show_default="none",
        ),
    ] = "",
    queries: Annotated[Path | None, option("CSV file with path,label of queries, for the report.")] = None,
    labels: Annotated[Path | None, option("CSV file with path,label of the indexed images.")] = None,
    title: Annotated[str, option("Column of the metadata that names photos.", "file name")] = "",
    caption: Annotated[str, option("Column that stands below the name, such as the price.", "none")] = "",
    link: Annotated[str, option("Column with the address that a photo leads to.", "none")] = "",
    shop: Annotated[
        bool, typer.Option("--shop", help="Show the search with the student alone, and no comparison.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        option("Let pages of this origin, as https://shop.example, use /widget.js. May repeat.", "none"),
    ] = None,
    max_upload_mb: Annotated[float, option("Largest request, in MB.")] = 50.0,
    price: shared.Price = None,
    fetch: Annotated[
        list[str] | None,
        option(
            "Allow the page to load images from addresses that start with this; with ? at its end, also "
            "with parameters. May repeat.",
            "nowhere",
        ),
    ] = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Be an MCP server too, at /mcp.")] = False,
    local: Annotated[
        bool,
        typer.Option("--local", help="Offer a page at local/ whose search runs in the visitor's browser."),
    ] = False,
    root_path: Annotated[str, option("Path at which a proxy shows the server, as /photos.", "none")] = "",
    device: shared.Device = "auto",
) -> None:
    """Serve the page and the API."""
    from app.server.app import ServerOptions
    from app.server.app import serve as serve_page
    from app.server.labels import Labels
    from index.search import open_searcher

    if auth and "RETRIEVAL_AUTH" not in os.environ:
        typer.echo("Other users of this machine can see --auth. Better set RETRIEVAL_AUTH.", err=True)
    if (queries is None) != (labels is None):
        raise UsageError("--queries and --labels go together: give both CSV files.")
    if shop and (teacher or ranker or queries):
        raise UsageError("--shop serves the student alone. Leave out --teacher, --ranker and --queries.")
    labelled = (queries, labels) if queries and labels else None
    options = ServerOptions(
        host, port, auth, max_upload_mb, mcp, price, root_path, labelled,
        Labels(title, caption, link), local, shop, tuple(origin or ()),
    )  # fmt: skip
    spec, judge = describe_either(teacher, ranker, teacher_option, ledger, budget)
    text = describe_text(text_teacher, tokenizer, text_option, ledger, budget)
    serve_page(lambda: open_searcher(index, spec, device, not shop, model, fetch or (), text, judge), options)


EXAMPLES = {
    search: "search idx query.jpg -k 5 --where colour=red",
    evaluate: "evaluate idx --queries queries.csv --labels gallery.csv",
    duplicates: "duplicates idx --radius 0.02",
    serve: "serve idx --price 1.20",
}
