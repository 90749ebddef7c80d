"""What a run that writes a gallery is asked for."""

from dataclasses import dataclass
from pathlib import Path

from index.errors import UsageError
from index.stores.records import Space

AUTO = "auto"


@dataclass(frozen=True)
class SearchTarget:
    """What is asked of an index."""

    recall: float = 0.95  # share of the ten nearest that it must find; 1 searches exactly
    memory: float = 1.0  # GiB that it may take, its stored vectors not counted, which stay on disk

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise UsageError(f"--recall must lie above 0 and up to 1, not {self.recall}.")
        if not self.memory > 0:
            raise UsageError(f"--memory must be above 0, not {self.memory}.")


RESCORED = 100  # results of codes that the floats of a query order again


@dataclass(frozen=True)
class IndexOptions:
    """How a gallery is searched once it is written, and what becomes of what is there."""

    # Of these three None is what was asked before, where that is gone on with, or else the default.
    factory: str | None = None  # a FAISS factory string, or `auto` to choose one by the target
    recall: float | None = None  # of `SearchTarget`
    memory: float | None = None  # likewise
    metadata: Path | None = None  # CSV, a column `path` and others to filter by; None keeps what was there
    resume: bool = False  # go on with the run that was interrupted, if there is one
    update: bool = False  # embed only what is new or changed, and drop what is gone
    exclude: tuple[str, ...] = ()  # names that are left out, as for `find_images`
    codes: int = 0  # bits of the student's codes to search by, in place of its vectors; 0 takes the vectors
    rescore: int | None = None  # of their results that the floats of a query order again; None: as it was

    def __post_init__(self) -> None:
        if self.codes < 0 or (self.rescore or 0) < 0:
            given = f"{self.codes} and {self.rescore or 0}"
            raise UsageError(f"--codes and --rescore must be 0 or more, not {given}.")
        if self.codes % 8:
            raise UsageError(f"--codes must be a multiple of 8, as the student has them, not {self.codes}.")
        if self.rescore is not None and not self.codes:
            raise UsageError("--rescore is for codes. Give --codes, too, or leave it out.")
        if self.codes and self.factory not in (None, AUTO):
            raise UsageError("--factory is for vectors. With --codes give --recall instead.")
        self.choose_target(None)  # which says what is wrong with it

    def choose_rescore(self, made: Space, before: Space | None) -> int:
        """Choose how many results are ordered again, of codes: as asked for, or as it was, or the default."""
        if not made.bits or self.rescore is not None:
            return self.rescore or 0
        return before.rescore if before and before.bits else RESCORED

    def choose_target(self, before: Space | None) -> SearchTarget:
        """Choose what is asked of a space: as given, or as it was, or the default."""
        known = SearchTarget(before.asked, before.memory) if before and before.factory else SearchTarget()
        return SearchTarget(
            known.recall if self.recall is None else self.recall,
            known.memory if self.memory is None else self.memory,
        )


DEFAULTS = IndexOptions()
