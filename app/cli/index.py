"""`retrieval index`: build an index, or look after one."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.cli import options as shared
from app.cli.groups import BuildsByDefault, report_faults
from app.cli.options import option, read_options

RAY = "Embed on a Ray cluster: host:port, or auto to start one on this machine."
indexes = typer.Typer(cls=BuildsByDefault, help="Build an index; or show, check or compact one.")


@indexes.command(
    epilog="Example: retrieval index photos --model student --out idx. Further commands: "
    "retrieval index info | verify | compact FOLDER."
)
def build(
    images: shared.Images,
    model: Annotated[Path, option("The student's folder or ONNX file.")],
    out: Annotated[
        str | None, option("Index folder, or milvus://HOST:19530/COLLECTION. Required without --collection.")
    ] = None,
    backend: Annotated[str, option("faiss, or milvus: a server that runs elsewhere.")] = "faiss",
    uri: Annotated[str, option("Address of the Milvus server.")] = "http://127.0.0.1:19530",
    collection: Annotated[str | None, option("Collection in Milvus; --out is then a work folder.")] = None,
    teacher: Annotated[str | None, option(f"To compare with. {shared.TEACHERS}")] = None,
    teacher_option: shared.TeacherOptions = None,
    recall: Annotated[
        float | None, option("Recall@10 that a search must reach.", "0.95, or as before")
    ] = None,
    memory: Annotated[
        float | None, option("GiB that each search index may take.", "1.0, or as before")
    ] = None,
    codes: Annotated[
        int, option("Search by the student's codes of this many bits, such as 128.", "by its vectors")
    ] = 0,
    rescore: Annotated[
        int | None, option("Results of codes to order again by the floats of a query.", "100, or as before")
    ] = None,
    factory: Annotated[
        str | None, option("A FAISS factory string, or auto to choose.", "auto, or as before")
    ] = None,
    metadata: Annotated[
        Path | None, option("CSV file with path and columns to filter by, see search --where.")
    ] = None,
    exclude: shared.Exclude = None,
    update: Annotated[
        bool, typer.Option("--update", help="Embed only what is new or changed, and drop what is gone.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    ray: Annotated[str | None, option(RAY, "embed here, without Ray")] = None,
    budget: shared.Paid = 0,
    ledger: shared.LedgerFile = None,
    price: shared.Price = None,
    dry_run: shared.DryRun = False,
    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda, or openvino: on the CPU, where that is measured to be faster."),
    ] = "auto",
) -> None:
    """Embed images and write an index."""
    from index.build.pipeline import build_by_name
    from index.progress import say
    from index.stores.options import IndexOptions
    from index.stores.registry import open_writer
    from index.teachers.cost import bill_by_name
    from index.teachers.spec import TeacherSpec

    store = open_writer(out, backend, uri, collection)
    left_out = tuple(exclude or ())
    options = IndexOptions(factory, recall, memory, metadata, resume, update, left_out, codes, rescore)
    spec = TeacherSpec(teacher, read_options(teacher_option), ledger, budget)
    if dry_run:
        known = store.index_folder if update else None
        typer.echo(bill_by_name(images, spec, device, price, update=known, exclude=left_out))
        return
    report = build_by_name(images, model, store, spec, device, options, ray)
    for failure in report.failures[:20]:
        say(f"refused {failure.path}: {failure.reason}")
    typer.echo(report.summary)
    for note in report.notes:
        say(note)


@indexes.command(epilog="Example: retrieval index info idx")
def info(index: shared.Gallery, as_json: shared.Json = False) -> None:
    """Show what an index holds, its models, and how well it is searched."""
    from index.stores.maintenance import describe_index

    facts = describe_index(index)
    typer.echo(json.dumps(asdict(facts)) if as_json else facts)


@indexes.command(epilog="Example: retrieval index verify idx")
def verify(index: shared.Gallery) -> None:
    """Check every file of an index against its digest."""
    from index.stores.maintenance import verify_index

    report_faults(verify_index(index))


@indexes.command(epilog="Example: retrieval index compact idx")
def compact(index: shared.IndexFolder) -> None:
    """Drop images whose file is gone, and leftovers of killed runs; or convert an earlier index."""
    from index.build.rewrite import compact_index
    from index.progress import count

    done = compact_index(index)
    typer.echo(
        f"{index} is in one part: {count(done.files, 'file')} dropped, {done.bytes / 1e6:.1f} MB freed."
    )
