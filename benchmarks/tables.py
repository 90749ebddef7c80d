"""Tables that benchmarks fill run by run: read back what is there, and write the whole beside it first."""

import csv
from collections.abc import Sequence
from pathlib import Path


def read_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file; none if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    """Write rows as a CSV file, beside its place first."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
