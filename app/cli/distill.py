"""Commands that make models, or vectors to learn: `export`, `distill`, `upgrade`, `judge`, `quantize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import options as shared
from app.cli.options import Several, option, read_options
from index.errors import UsageError

if TYPE_CHECKING:
    from distill.options import Target

FORMER = (
    "A student folder to top up: IMAGES are further photos, --budget counts answers about them, --teacher "
    "and --out are its own unless given."
)
QUERIES = "Photos like those that will be searched with: agreement is measured on some of them. May repeat."
HELPER = (
    "A free network that helps to predict the teacher's answers, best the one that it was made from: an ONNX "
    "file, a file of vectors, or file.py:function. May repeat."
)
BUDGET = "Most images to send to the teacher, ever; several, such as 100,500, make a student each."
TARGET = (
    "Shrink the student while it learns, to this many milliseconds an image on one core of this machine; "
    "several, such as 0.5,1,2, make a student each. It takes more steps, at half of the cost twice as many."
)
BITS = (
    "Give the student codes of this many bits, such as 64, 128 or 256, fitted to the images. Costs no "
    "answers; its vectors stay the same."
)
COMPARED_QUERIES = "Photos like those that will be searched with, to compare rankings on. May repeat."
RANKERS = "Address of a chat or rerank endpoint, .csv or .parquet of query,better,worse, or file.py:function."


def export(
    model: Annotated[str, typer.Argument(help="A timm model name, or demo-teacher.")],
    out: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    weights: shared.Weights = "auto",
) -> None:
    """Write a timm model as an ONNX file, to use as a teacher."""
    from distill.model.export import export_model
    from index.progress import say

    say(f"Writing {model} as an ONNX file: that takes up to some minutes.")
    export_model(model, out, weights)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def distill(
    images: shared.Images,
    teacher: Annotated[str | None, option(shared.TEACHERS)] = None,
    out: Annotated[Path | None, option("The student folder to write.")] = None,
    former: Annotated[Path | None, typer.Option("--continue", help=FORMER)] = None,
    teacher_option: shared.TeacherOptions = None,
    budget: Annotated[str, option(BUDGET)] = "500",
    student: Annotated[str, option("tiny, small or base; or a timm name.")] = "small",
    size: Annotated[int | None, option("The student's input side in pixels.", "128; 192 of base")] = None,
    dim: Annotated[int, option("Dimension of the student's embeddings.")] = 256,
    bits: Annotated[
        int, option("Codes to search by, of this many bits, such as 128; see quantize --bits.", "none")
    ] = 0,
    queries: Annotated[Several, option(QUERIES, "photos of the pool")] = None,
    also: Annotated[
        Several, option("Photos to ask about first, such as the ask.txt of the page. May repeat.", "none")
    ] = None,
    helper: Annotated[Several, option(HELPER, "none")] = None,
    exclude: shared.Exclude = None,
    select: Annotated[
        str, option("How to choose the images sent to the teacher: kmeans, kcenter or random.")
    ] = "kmeans",
    stages: Annotated[
        int | None, option("Stages of the network to keep: fewer are faster.", "to 1/16 of the image")
    ] = None,
    target_ms: Annotated[str | None, option(TARGET, "as it is")] = None,
    target_parameters: Annotated[
        str | None, option("The same, to a number of parameters, such as 0.7M.", "as it is")
    ] = None,
    target_mflops: Annotated[
        str | None, option("The same, to millions of multiply-adds an image.", "as it is")
    ] = None,
    recipe: Annotated[
        str, option("How to train: default, zero-answers, plain-crops, ...; an unknown name lists all.")
    ] = "default",
    weights: shared.Weights = "auto",
    steps: shared.Steps = None,
    seed: shared.Seed = 0,
    variants: Annotated[str, option("Smaller copies to make too: fp16, int8, or fp16,int8.")] = "",
    ledger: shared.LedgerFile = None,
    price: shared.Price = None,
    dry_run: shared.DryRun = False,
    device: shared.Device = "auto",
) -> None:
    """Train a student to rank like the teacher, and export it. Reads no labels."""
    from distill.options import Options, check_bits, check_student
    from distill.training.recipes import find_recipe
    from index.teachers.spec import TeacherSpec

    if former is None and (teacher is None or out is None):
        raise UsageError("Give --teacher and --out, or the student folder to --continue.")
    budgets, targets = parse_budgets(budget), read_targets(target_ms, target_parameters, target_mflops)
    if former is not None and max(len(budgets), len(targets)) > 1:
        raise UsageError("--continue takes one --budget and one target.")
    spec = TeacherSpec(teacher, read_options(teacher_option), ledger, budgets[-1])
    chosen = Options(
        budget=budgets[-1],
        target=targets[-1] if targets else None,
        student=student,
        weights=weights,
        size=size or 0,
        dim=dim,
        bits=bits,
        stages=stages,
        select=select,
        recipe=find_recipe(recipe),
        steps=steps,
        seed=seed,
        price=price,
        device=device,
        variants=tuple(filter(None, variants.split(","))),
        queries=tuple(queries or ()),
        also=tuple(also or ()),
        exclude=tuple(exclude or ()),
        helpers=tuple(helper or ()),
    )
    check_student(chosen.student)
    if dry_run and former is None:
        from index.teachers.cost import bill_by_name

        pool = None, chosen.exclude, chosen.queries
        bill = bill_by_name([*images, *chosen.also], spec, device, price, budgets[-1], *pool)
        check_bits(bits, dim, bill.images)
        typer.echo(bill)
        return
    from distill.continued import bill_further, continue_by_name
    from distill.pipeline import distill_by_name

    if former and dry_run:
        typer.echo(bill_further(images, former, spec, chosen))
        return
    if former:
        made = continue_by_name(images, former, spec, out or former, chosen)
    else:
        made = distill_by_name(images, spec, out, chosen, budgets, targets)  # type: ignore[arg-type]  # see above
    if made.summary:
        typer.echo(made.summary)
    if made.summary and former:
        typer.echo("Indexes of the former student keep their copy of it. To use this one, index again.")


def upgrade(
    index: shared.IndexFolder,
    teacher: Annotated[str, option(f"The new teacher. {shared.TEACHERS}")],
    out: Annotated[Path, option("The student folder to write.")],
    teacher_option: shared.TeacherOptions = None,
    budget: Annotated[int, option("Most images to send to the teacher, ever.")] = 500,
    steps: shared.Steps = None,
    seed: shared.Seed = 0,
    ledger: shared.LedgerFile = None,
    price: shared.Price = None,
    dry_run: shared.DryRun = False,
    device: shared.Device = "auto",
) -> None:
    """Train a new teacher's student to search an old index."""
    from distill.options import Options
    from distill.upgrade import bill_upgrade, upgrade_by_name
    from index.teachers.spec import TeacherSpec

    options = Options(budget=budget, steps=steps, seed=seed, price=price, device=device)
    spec = TeacherSpec(teacher, read_options(teacher_option), ledger, budget)
    if dry_run:
        typer.echo(bill_upgrade(index, spec, out, options))
        return
    _, summary = upgrade_by_name(index, spec, out, options)
    if summary:
        typer.echo(summary)


def parse_budgets(text: str) -> list[int]:
    """Read `500` or `100,250,500`, and return them rising; UsageError if it is something else."""
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(
            f"--budget must be a number or several, such as 100,250,500, not {text!r}."
        ) from None


def read_targets(ms: str | None, parameters: str | None, mflops: str | None) -> "list[Target]":
    """Read what students are to shrink to, rising; UsageError if kinds are mixed, or one is no number."""
    from distill.options import Target

    kinds = {"ms": ms, "parameters": parameters, "mflops": mflops}
    given = {kind: text for kind, text in kinds.items() if text is not None}
    if len(given) > 1:
        raise UsageError("Give one of --target-ms, --target-parameters and --target-mflops.")
    values = {(kind, _read_number(kind, part)) for kind, text in given.items() for part in text.split(",")}
    return [Target(*each) for each in sorted(values)]


def _read_number(kind: str, text: str) -> float:
    """Read a number; parameters, in millions, may be as 500000 or 0.5M."""
    number = text.strip().lower()
    try:
        if kind != "parameters":
            return float(number)
        if number.endswith(("k", "m")):
            return float(number[:-1]) / {"k": 1e3, "m": 1}[number[-1]]
        return float(number) / 1e6
    except ValueError:
        such = "a number as 500000 or 0.5M" if kind == "parameters" else "a number, or several as 0.5,1,2"
        raise UsageError(f"--target-{kind} must be {such}, not {text!r}.") from None


def quantize(
    student: Annotated[Path, typer.Argument(help="A student folder, or the student in it.")],
    images: shared.Images,
    bits: Annotated[int | None, typer.Option(min=8, help=BITS)] = None,
    variants: Annotated[
        str | None, option("fp16, int8, or fp16,int8.", "fp16,int8, unless there are --bits")
    ] = None,
    queries: Annotated[
        Several, option(COMPARED_QUERIES, "photos of the pool that did not calibrate the copy")
    ] = None,
) -> None:
    """Make fp16 and int8 copies that rank alike, or binary codes."""
    from distill.model.codes import append_codes_by_name
    from distill.model.quantize import check_request, make_variants_by_name

    if student.is_file():
        if student.name != "student.onnx":
            raise UsageError(f"{student} is no student. Give a student's folder, or the student.onnx in it.")
        student = student.parent
    names = (variants or "fp16,int8").split(",") if variants or not bits else ()
    if bits:
        if names:
            check_request(student, images, names, queries or ())
        typer.echo(append_codes_by_name(student, images, bits))
    for made in make_variants_by_name(student, images, names, queries or ()) if names else ():
        typer.echo(str(made))


def judge(
    images: shared.Images,
    ranker: Annotated[str, option(RANKERS)],
    out: Annotated[Path, option("The .npz or .parquet of vectors to write.")],
    budget: Annotated[int, typer.Option(help="Most lists to ask about, ever.", min=1)] = 500,
    orders_only: Annotated[
        bool, typer.Option("--orders-only", help="The ranker is a teacher with vectors: use its orders.")
    ] = False,
    queries: Annotated[
        Several, option("Photos that get a vector, and are asked about in no list. May repeat.")
    ] = None,
    teacher_option: shared.TeacherOptions = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Random seed.")] = 0,
    ledger: shared.LedgerFile = None,
    price: shared.Price = None,
    dry_run: shared.DryRun = False,
    device: shared.Device = "auto",
) -> None:
    """Learn from a teacher that only ranks; write vectors to distil."""
    from index.rankers.registry import RankerSpec
    from index.teachers.ledger import IN_MEMORY, Ledger

    spec = RankerSpec(ranker, read_options(teacher_option), ledger, budget, orders_only=orders_only)
    opened = spec.open_plain(device)
    # What costs nothing is asked again.
    kept = spec.open_ledger(opened.key, dry_run) if opened.calls.paid else Ledger(IN_MEMORY, opened.key)
    with kept as answers:
        if dry_run:
            from distill.ranking.lists import make_bill

            typer.echo(make_bill(images, opened, answers, budget, price))
            return
        from distill.ranking.judge import judge as make

        typer.echo(make(images, opened, answers, budget, out, queries or (), device, seed))


EXAMPLES = {
    distill: "distill photos --teacher teacher.onnx --budget 500 --out student; later: distill others "
    "--continue student --budget 100",
    export: "export demo-teacher teacher.onnx",
    upgrade: "upgrade idx --teacher new.onnx --out new-student",
    quantize: "quantize student photos --queries snapshots; or: quantize student photos --bits 128",
    judge: "judge photos --ranker https://HOST/v1/rerank --budget 500 --out judged.npz; then: distill "
    "photos --teacher judged.npz --budget 5000 --out student",
}
