"""`retrieval judge`: a teacher that only ranks becomes one with vectors."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import options as shared
from app.cli.options import option, read_options

RANKERS = "Address of a chat or rerank endpoint, .csv or .parquet of query,better,worse, or file.py:function."


def judge(
    images: shared.Images,
    ranker: Annotated[str, option(RANKERS)],
    out: Annotated[Path, option("The .npz or .parquet of vectors to write.")],
    budget: Annotated[int, typer.Option(help="Most lists to ask about, ever.", min=1)] = 500,
    orders_only: Annotated[
        bool, typer.Option("--orders-only", help="The ranker is a teacher with vectors: use its orders.")
    ] = False,
    queries: Annotated[
        list[str] | None, option("Photos that get a vector, and are asked about in no list. May repeat.")
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
    judge: "judge photos --ranker https://HOST/v1/rerank --budget 500 --out judged.npz; then: distill "
    "photos --teacher judged.npz --budget 5000 --out student",
}
