"""Whether the model behind an endpoint is still the one that has given the answers of a ledger."""

from collections.abc import Iterable

import numpy as np

from index.embedders.base import find_fault, unit_rows
from index.errors import ImageError, RetrievalError
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.teachers.client import BudgetedTeacher
from index.teachers.questions import Question

REPLACED = 0.99  # similarity of two answers about one image below which they are of two models


def probe(files: Iterable[ImageFile], teacher: BudgetedTeacher) -> None:
    """Ask again about the first of these images that has an answer, and compare.

    Nothing is asked where a model cannot be replaced under its name, nor where the budget has room for one
    call alone. A call that brings no answer says nothing of the model.

    Raises:
        RetrievalError: The teacher answers otherwise than before.
    """
    ledger = teacher.ledger
    if not teacher.replaceable or ledger.spent + 1 >= teacher.budget:
        return
    for file in files:
        try:
            question = teacher.prepare(read_photo(file, teacher.side))
        except ImageError:
            continue
        if ledger.known([question.digest]):
            probe_with(question, teacher)
            return


def probe_with(question: Question, teacher: BudgetedTeacher) -> None:
    """Ask again about an image that has an answer, and compare; as `probe`."""
    before = teacher.ledger.answers([question.digest]).get(question.digest)
    if before is None or not teacher.replaceable or (row := teacher.ask_again(question)) is None:
        return
    alike = 0.0
    if len(row) == len(before) and not find_fault(row):
        alike = float(np.prod(unit_rows(np.stack([row, before]), teacher.name), axis=0).sum())
    if alike < REPLACED:
        raise RetrievalError(
            f"{teacher.name} answers otherwise about {question.name} than before (similarity {alike:.3f}). "
            "If it is another model now, give another --ledger; --teacher-probe false mixes both."
        )
