"""The models of the vectors that a store keeps."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from index.embedders.base import Embedder
from index.embedders.onnx import OnnxEmbedder
from index.embedders.registry import is_file_spec
from index.embedders.teacher_space import TeacherSpace
from index.errors import UsageError
from index.images.file import readable
from index.progress import say
from index.stores.records import Manifest, Space

PROJECTED = "projected"


@dataclass(frozen=True)
class Models:
    """What makes the vectors of a gallery."""

    student: OnnxEmbedder  # to search with
    teacher: Embedder | None = None  # to compare with
    space: TeacherSpace | None = None  # projects the teacher's vectors to the student's space

    @property
    def embedders(self) -> dict[str, Embedder]:
        """The models by name."""
        return {"student": self.student} | ({"teacher": self.teacher} if self.teacher else {})

    @property
    def projection(self) -> TeacherSpace | None:
        """What makes the projected space, if there is one."""
        fits = self.teacher and self.space and self.space.fits(self.teacher.dim, self.student.dim)
        return self.space if fits else None

    @property
    def spaces(self) -> dict[str, Space]:
        """What they make; a teacher that nothing was asked of yet may not say how long its vectors are: 0."""
        spaces = {
            name: Space(model.key, model.name, model.dim, **asdict(model.vector_type))
            for name, model in self.embedders.items()
        }
        if self.projection is not None:
            spaces[PROJECTED] = Space(self.projection.key, "teacher space", self.student.dim)
        return spaces

    @property
    def teacher_spec(self) -> tuple[str | None, dict[str, Any]]:
        """What opens the teacher again: its name and options. No key is among them."""
        return (self.teacher.spec, asdict(self.teacher.options)) if self.teacher else (None, {})

    @property
    def identity(self) -> dict[str, str]:
        """What a journal is to remember of them."""
        named = {name: f"{readable(model.name)} ({model.key})" for name, model in self.embedders.items()}
        return {"teacher": "none"} | named

    def projected(self, manifest: Manifest) -> bool:
        """Whether a gallery has the projected space that they make, if they make one."""
        has = manifest.spaces.get(PROJECTED)
        return self.projection is None or (has is not None and has.key == self.projection.key)

    def made(self, manifest: Manifest) -> bool:
        """Whether they made a gallery."""
        made_by = {name: space.key for name, space in manifest.spaces.items() if name != PROJECTED}
        return made_by == {name: model.key for name, model in self.embedders.items()}

    def require_same(self, manifest: Manifest, where: object) -> None:
        """Raise UsageError if models of other names made a gallery; a teacher may be gone since."""
        made_by = [name for name in manifest.spaces if name != PROJECTED]
        teacher = manifest.teacher
        if teacher and self.teacher is None and is_file_spec(teacher) and not Path(teacher).exists():
            say(f"{teacher} is gone: what is new or changed leaves {where} without a teacher.")
            made_by.remove("teacher")
        if set(made_by) != set(self.embedders):
            raise UsageError(
                f"{where} was made by {' and '.join(made_by)}, not by {' and '.join(self.embedders)}. "
                "Give the same models, or index without --update."
            )
