"""`retrieval ledger`: look into the file of paid answers."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.cli.groups import ShowsByDefault, report_faults
from app.cli.options import Json
from index.errors import UsageError

ledgers = typer.Typer(
    cls=ShowsByDefault, no_args_is_help=True, help="Show, export or check a teacher's paid answers."
)
LedgerPath = Annotated[Path, typer.Argument(help="The file of a ledger.")]


@ledgers.command("show", epilog="Example: retrieval ledger show ledger.sqlite (or without `show`)")
def show_ledger(
    file: Annotated[
        Path | None, typer.Argument(help="The file of a ledger.", show_default="each in the cache folder")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the teacher, stored answers and spent budget."""
    from index.teachers.ledger import default_ledger
    from index.teachers.ledger_report import read_account

    folder = default_ledger("").parent
    if not (files := [file] if file else sorted(folder.glob("*.sqlite"))):
        raise UsageError(f"No ledger is in {folder} yet. Name its file.")
    for each in files:
        account = read_account(each)
        facts = {"file": str(each), **asdict(account), "spent": account.spent}
        typer.echo(json.dumps(facts) if as_json else f"file       {each}\n{account}")


@ledgers.command("export", epilog="Example: retrieval ledger export ledger.sqlite vectors.npz")
def export_ledger(
    file: LedgerPath, out: Annotated[Path, typer.Argument(help="An .npz or .parquet file to write.")]
) -> None:
    """Write all answers as a file of vectors, which can be used as a teacher."""
    from index.progress import count
    from index.teachers.ledger_report import export_ledger

    typer.echo(f"{out}: {count(export_ledger(file, out), 'answer')}")


@ledgers.command("verify", epilog="Example: retrieval ledger verify ledger.sqlite")
def verify_ledger(file: LedgerPath) -> None:
    """Check the file, and every answer against its checksum."""
    from index.teachers.ledger_report import verify_ledger

    report_faults(verify_ledger(file))
