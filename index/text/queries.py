"""Words as queries: a teacher's text model searches the galleries of its students.

Texts and images of a model such as CLIP lie in two cones, far apart: a text is the mean of all texts and what
it says. What it says is what counts: the difference from the mean of many texts goes through the teacher
space, without the mean of the images, which is no text's. Whatever all texts have in common, the gap between
the cones first of all, cancels.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from index.embedders.base import Embedder
from index.embedders.teacher_space import TeacherSpace
from index.errors import UsageError
from index.text.models import Text
from index.vectors import Vectors

# Whose mean stands for that of all texts: what photos show, in as many kinds as possible.
COMMON = (
    "person man woman child baby crowd face hand dog cat bird horse cow fish insect tree flower "
    "grass leaf forest mountain beach sea river sky cloud snow rain sunset street road bridge house building "
    "church door window room kitchen bed chair table lamp car bus train bicycle boat plane bottle cup plate "
    "bread fruit vegetable meat cake shirt dress shoe hat bag watch phone computer book sign"
).split()


@dataclass(frozen=True)
class TextQueries:
    """Makes vectors of words."""

    model: Embedder  # the text model
    dim: int  # length of the teacher's vectors
    space: TeacherSpace | None  # of the student, which may have come without it

    def embed(self, *texts: Text) -> Vectors:
        """Embed texts among the teacher's vectors: `(n, teacher dim)` unit rows.

        Raises:
            RetrievalError: The model failed, or has no budget left.
        """
        rows = self.model.embed([self.model.prepare(text) for text in texts])  # type: ignore[arg-type]
        if rows.shape[1] != self.dim:
            raise UsageError(
                f"{self.model.name} answers with {rows.shape[1]} numbers, the teacher of this index with "
                f"{self.dim}. Give the text model that belongs to it."
            )
        return rows

    def project(self, rows: Vectors) -> Vectors:
        """Map `(n, teacher dim)` unit rows of texts to `(n, dim)` unit rows among the student's vectors."""
        return self._centred.project(rows)

    @cached_property
    def _centred(self) -> TeacherSpace:
        assert self.space is not None
        return replace(self.space, mean=self.embed(*map(Text, COMMON)).mean(axis=0))
