"""`retrieval ledger`: look into the file of paid answers."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import Json

ledgers = typer.Typer(no_args_is_help=True, help="Look into a ledger, the file of a teacher's paid answers.")
LedgerPath = Annotated[Path, typer.Argument(help="The file of a ledger.", show_default=False)]


@ledgers.command("show")
def show_ledger(file: LedgerPath, as_json: Json = False) -> None:
    """Say whose answers it holds, how many, and what counts as spent."""
    from index.teachers.ledger_report import read_account

    account = read_account(file)
    typer.echo(json.dumps(asdict(account) | {"spent": account.spent}) if as_json else account)


@ledgers.command("export")
def export_ledger(
    file: LedgerPath,
    out: Annotated[Path, typer.Argument(help="An .npz or .parquet file to write.", show_default=False)],
) -> None:
    """Write all answers as a file of vectors, which can be a teacher itself."""
    from index.teachers.ledger_report import export_ledger

    typer.echo(f"{out}: {export_ledger(file, out)} answers")


@ledgers.command("verify")
def verify_ledger(file: LedgerPath) -> None:
    """Check the file, and every answer against its checksum."""
    from index.teachers.ledger_report import verify_ledger

    faults = verify_ledger(file)
    typer.echo("\n".join(faults) or "All is well.")
    raise typer.Exit(int(bool(faults)))
