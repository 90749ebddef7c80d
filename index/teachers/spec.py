"""How a command reaches its teacher: the spec, its options, the ledger and the budget."""

from dataclasses import dataclass, field
from pathlib import Path

from index.embedders.base import Embedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.errors import UsageError
from index.progress import say
from index.teachers.client import BudgetedTeacher
from index.teachers.ledger import IN_MEMORY, Ledger, default_ledger
from index.teachers.ledger_report import read_account
from index.text.models import open_text


@dataclass(frozen=True)
class TeacherSpec:
    """What opens a teacher."""

    spec: str | None = None  # as for `open_embedder`; None without one, or where an index remembers it
    options: EmbedderOptions = field(default_factory=EmbedderOptions)  # as for `open_embedder`
    ledger: Path | None = None  # the file of its answers; None keeps it in the user's cache folder
    budget: int = 0  # how many images a paid one may ever be asked about; 0 lets only the ledger answer
    opened: Embedder | None = None  # itself, where it is open already, as a Python callable may be

    def __post_init__(self) -> None:
        if self.budget < 0:
            raise UsageError(f"--budget must be 0 or more, not {self.budget}.")

    def open_plain(self, device: str) -> Embedder:
        """Open the teacher itself; UsageError if none is given."""
        if self.opened:
            return self.opened
        if not self.spec:
            raise UsageError("Give --teacher.")
        return open_embedder(self.spec, device, self.options)

    def open_ledger(self, teacher_key: str, dry: bool = False) -> Ledger:
        """Open its ledger; one in memory, if `dry`, stands for a ledger that is not there or is another's."""
        path = self.ledger or default_ledger(teacher_key)
        if dry and path.exists() and (owner := read_account(path).teacher) != teacher_key:
            say(f"{path} holds the answers of another teacher: {owner}. A run will need another --ledger.")
            path = IN_MEMORY
        return Ledger(IN_MEMORY if dry and not path.exists() else path, teacher_key)

    def open(self, device: str) -> Embedder:
        """Open the teacher, with ledger and budget if its answers may have a price; UsageError as these."""
        teacher = self.open_plain(device)
        if not teacher.calls.paid:
            return teacher
        return BudgetedTeacher(teacher, self.open_ledger(teacher.key), self.budget)


@dataclass(frozen=True)
class TextSpec(TeacherSpec):
    """What opens the text model of a teacher. The ledger is one of texts: none is among the images."""

    tokenizer: Path | None = None  # the `tokenizer.json` of an ONNX file

    def open_plain(self, device: str) -> Embedder:
        """As of `TeacherSpec`."""
        assert self.spec is not None
        return open_text(self.spec, self.tokenizer, device, self.options)
