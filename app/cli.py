"""The `retrieval` command: each command reads its options and calls one function."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.groups import BuildsByDefault, OneLine
from app.teacher_options import takes_teacher_options
from index.options import EmbedderOptions
from index.progress import say
from index.teacher import TeacherSpec

app = typer.Typer(
    cls=OneLine, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Distil a compact image embedder from few queries to a heavy one, and search with it.",
)  # fmt: skip

TEACHERS = "ONNX file, http(s) address, .npz or .parquet of vectors, or package.module:callable."
SOURCES = "Folders of images, image files, .txt or .parquet lists, .tar shards; or addresses: s3://..."
Images = Annotated[list[str], typer.Argument(help=SOURCES, show_default=False)]
IndexFolder = Annotated[Path, typer.Argument(help="An index folder.", show_default=False)]
Gallery = Annotated[
    str, typer.Argument(help="An index folder, or milvus://HOST:19530/COLLECTION.", show_default=False)
]
Student = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="The student's ONNX file, for a Milvus collection that another machine wrote.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Teacher = Annotated[str | None, typer.Option(help="As for distill, if it is not what or where it was.")]
Paid = Annotated[
    int, typer.Option("--budget", help="How many images a paid teacher may ever be asked about.")
]
LedgerFile = Annotated[
    Path | None, typer.Option(help="The file of paid answers.", show_default="in the cache folder")
]
Price = Annotated[float | None, typer.Option(help="What a thousand answers cost, in your money.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it will cost, and ask nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options that come before the command."""


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A timm model name, or demo-teacher.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The ONNX file to write.", show_default=False)],
    weights: Annotated[str, typer.Option(help="auto, none, or a .pth or .safetensors file.")] = "auto",
) -> None:
    """Write a timm model as an ONNX embedder, to be a teacher or a yardstick."""
    from distill.export import export_model

    export_model(model, out, weights)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


@app.command()
@takes_teacher_options
def distill(
    images: Images,
    teacher: Annotated[str, typer.Option(help=TEACHERS, show_default=False)],
    out: Annotated[Path, typer.Option(help="The student folder to write.", show_default=False)],
    budget: Annotated[
        str, typer.Option(help="How many images the teacher may ever be asked about; several for a curve.")
    ] = "500",
    student: Annotated[str, typer.Option(help="timm name of the student.")] = "tf_efficientnet_lite0",
    size: Annotated[int, typer.Option(help="The student's input side in pixels.")] = 128,
    dim: Annotated[int, typer.Option(help="Length of the student's vectors.")] = 256,
    select: Annotated[str, typer.Option(help="Whom to ask about: kmeans, kcenter, random.")] = "kmeans",
    stages: Annotated[
        int | None, typer.Option(help="Stages of the student to keep.", show_default="to 1/16 of the image")
    ] = None,
    recipe: Annotated[str, typer.Option(help="default, plain-crops, or a baseline.")] = "default",
    weights: Annotated[str, typer.Option(help="auto, none, or a .pth or .safetensors file.")] = "auto",
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="by budget")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    variants: Annotated[str, typer.Option(help="Smaller files to make too: fp16, int8, or both.")] = "",
    ledger: LedgerFile = None,
    price: Price = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    *,
    teacher_options: EmbedderOptions,
) -> None:
    """Train a student to rank like the teacher, and export it. Reads no labels."""
    from distill.curve import distill_by_name, parse_budgets
    from distill.distillation import Options
    from distill.recipes import find_recipe
    from index.bill import bill_by_name

    budgets, how = parse_budgets(budget), find_recipe(recipe)
    files = tuple(filter(None, variants.split(",")))
    chosen = Options(
        budgets[-1], student, weights, size, dim, select, stages, device, files, steps, seed, price, how
    )
    spec = TeacherSpec(teacher, teacher_options, ledger, budgets[-1])
    if dry_run:
        typer.echo(bill_by_name(images, spec, device, price, wanted=budgets[-1]))
    elif summary := distill_by_name(images, spec, out, chosen, budgets).summary:
        typer.echo(summary)


@app.command()
def quantize(
    student: Annotated[Path, typer.Argument(help="A student folder.", show_default=False)],
    images: Images,
    variants: Annotated[str, typer.Option(help="fp16, int8, or both.")] = "fp16,int8",
) -> None:
    """Make smaller files of a student, and keep those that rank like it."""
    from distill.variants import make_variants_by_name

    for made in make_variants_by_name(student, images, variants.split(",")):
        typer.echo(str(made))


indexes = typer.Typer(cls=BuildsByDefault, help="Embed images and write an index; or look after one.")
app.add_typer(indexes, name="index")


@indexes.command(epilog="Look after an index: retrieval index info FOLDER, or verify, or compact.")
@takes_teacher_options
def build(
    images: Images,
    model: Annotated[Path, typer.Option(help="The student's ONNX file.", show_default=False)],
    out: Annotated[
        str | None,
        typer.Option(help="The index folder, or milvus://HOST:19530/COLLECTION.", show_default=False),
    ] = None,
    backend: Annotated[str, typer.Option(help="faiss, or milvus: a server that runs elsewhere.")] = "faiss",
    uri: Annotated[str, typer.Option(help="Of the Milvus server.")] = "http://127.0.0.1:19530",
    collection: Annotated[
        str | None,
        typer.Option(help="Its collection. --out is then a work folder.", show_default=False),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help=f"To compare with. {TEACHERS}")] = None,
    recall: Annotated[float, typer.Option(help="Share of the ten nearest that a search must find.")] = 0.95,
    memory: Annotated[float, typer.Option(help="GiB that each search index may take.")] = 1.0,
    factory: Annotated[str, typer.Option(help="A FAISS factory string, or auto to choose.")] = "auto",
    metadata: Annotated[
        Path | None, typer.Option(help="CSV file with path and columns to filter by, see search --where.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Embed only what is new or changed, and drop what is gone.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Embed on a Ray cluster: host:port, or auto to start one on this machine.",
            show_default="embed here, without Ray",
        ),
    ] = None,
    budget: Paid = 0,
    ledger: LedgerFile = None,
    price: Price = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    *,
    teacher_options: EmbedderOptions,
) -> None:
    """Embed images and write an index."""
    from index.bill import bill_by_name
    from index.gallery import Target, write_gallery
    from index.tuning import Need

    target = Target.parse(out, backend, uri, collection)
    need = Need(recall, memory)
    spec = TeacherSpec(teacher, teacher_options, ledger, budget)
    if dry_run:
        typer.echo(bill_by_name(images, spec, device, price, update=target.index_folder if update else None))
        return
    made = write_gallery(images, model, target, spec, factory, device, resume, update, need, metadata, ray)
    for failure in made.failures[:20]:
        say(f"refused {failure.path}: {failure.reason}")
    typer.echo(made.summary)


@indexes.command()
def info(index: IndexFolder, as_json: Json = False) -> None:
    """Say what an index holds, who made it, and how well it is searched."""
    from index.upkeep import describe_index

    facts = describe_index(index)
    typer.echo(json.dumps(asdict(facts)) if as_json else facts)


@indexes.command()
def verify(index: IndexFolder) -> None:
    """Read all of an index, and check it against what was written."""
    from index.upkeep import verify_index

    faults = verify_index(index)
    typer.echo("\n".join(faults) or "All is well.")
    raise typer.Exit(int(bool(faults)))


@indexes.command()
def compact(index: IndexFolder) -> None:
    """Drop images whose files are gone, and what dead runs left on the disk. Embeds nothing."""
    from index.compacting import compact_index

    done = compact_index(index)
    typer.echo(f"{index}: {done.files} files dropped, {done.bytes / 1e6:.1f} MB freed.")


@app.command()
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
    from app.answers import search_files
    from index.narrowing import Narrow, parse_where

    narrow = Narrow(prefix, parse_where(where or ()), cut)
    spec = TeacherSpec(teacher, teacher_options, ledger, budget)
    answers = search_files(index, queries, k, mode, spec, device, narrow, model)
    typer.echo(json.dumps(answers.as_dict()) if as_json else answers.as_text())
    raise typer.Exit(answers.exit_code)


@app.command()
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
    from app.answers import format_revisited, format_scores
    from index.evaluate import evaluate_by_name
    from index.rankings import Options, parse_scales

    options = Options(mode, parse_scales(scales), whiten)
    spec = TeacherSpec(teacher, teacher_options, ledger, budget)
    scores = evaluate_by_name(index, queries, labels, revisited, spec, device, options)
    as_text = format_revisited if revisited else format_scores
    typer.echo(json.dumps(scores) if as_json else as_text(scores))


@app.command()
@takes_teacher_options
def serve(
    index: Gallery,
    model: Student = None,
    teacher: Teacher = None,
    budget: Paid = 0,
    ledger: LedgerFile = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 7860,
    auth: Annotated[
        str,
        typer.Option(
            envvar="RETRIEVAL_AUTH",
            help="user:password that every request must bring. Set it in the environment: what stands on a "
            "command line can be read by every user of the machine.",
            show_default="none",
        ),
    ] = "",
    max_upload_mb: Annotated[float, typer.Option(help="Largest request, in MB.")] = 50.0,
    price: Price = None,
    fetch: Annotated[
        list[str] | None,
        typer.Option(
            help="Below which addresses the page may read images, such as s3://BUCKET/. May repeat.",
            show_default="nowhere",
        ),
    ] = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Be an MCP server too, at /mcp.")] = False,
    device: Device = "auto",
    *,
    teacher_options: EmbedderOptions,
) -> None:
    """Serve the page that searches and compares, and the API."""
    from app.server import ServerOptions
    from app.server import serve as serve_page
    from index.search import open_searcher

    if auth and "RETRIEVAL_AUTH" not in os.environ:
        typer.echo("Every user of this machine can read --auth. Better set RETRIEVAL_AUTH.", err=True)
    options = ServerOptions(host, port, auth, max_upload_mb, mcp, price)
    spec = TeacherSpec(teacher, teacher_options, ledger, budget)
    serve_page(open_searcher(index, spec, device, model=model, allowed=fetch or ()), options)


ledgers = typer.Typer(no_args_is_help=True, help="Look into a ledger, the file of a teacher's paid answers.")
app.add_typer(ledgers, name="ledger")
LedgerPath = Annotated[Path, typer.Argument(help="The file of a ledger.", show_default=False)]


@ledgers.command("show")
def show_ledger(file: LedgerPath, as_json: Json = False) -> None:
    """Say whose answers it holds, how many, and what counts as spent."""
    from index.ledger_file import read_account

    account = read_account(file)
    typer.echo(json.dumps(asdict(account) | {"spent": account.spent}) if as_json else account)


@ledgers.command("export")
def export_ledger(
    file: LedgerPath,
    out: Annotated[Path, typer.Argument(help="An .npz or .parquet file to write.", show_default=False)],
) -> None:
    """Write all answers as a file of vectors, which can be a teacher itself."""
    from index.ledger_file import export_ledger

    typer.echo(f"{out}: {export_ledger(file, out)} answers")


@ledgers.command("verify")
def verify_ledger(file: LedgerPath) -> None:
    """Check the file, and every answer against its checksum."""
    from index.ledger_file import verify_ledger

    faults = verify_ledger(file)
    typer.echo("\n".join(faults) or "All is well.")
    raise typer.Exit(int(bool(faults)))


@app.command()
def demo(
    images: Annotated[
        Path | None, typer.Option(help="A folder of yours.", show_default="photos that are installed")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("retrieval-demo"),
    serve: Annotated[bool, typer.Option(help="Open the page afterwards.")] = True,
    port: Annotated[int, typer.Option(help="Port of the page.")] = 7860,
) -> None:
    """Tell the whole story on sample photos: teacher, student, index, comparison, page."""
    from app.demo import run_demo

    run_demo(images, out, serve, port)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="retrieval")


if __name__ == "__main__":
    main()
