"""What the report tab knows without measuring: the student's run, what things weigh, what was refused."""

from dataclasses import dataclass
from pathlib import Path

from index.embedders.registry import is_file_spec
from index.search import Searcher
from index.stores.base import Store
from index.stores.folder import COMPANIONS
from index.stores.records import Space

_, _, *VARIANTS = COMPANIONS


@dataclass(frozen=True)
class Size:
    """What a model and its search index weigh, in bytes, and its space; None where that is not known."""

    name: str
    model: int | None
    space: Space | None = None
    search: int | None = None


def find_variants(index: Store) -> dict[str, Path]:
    """Smaller files of the student that the index keeps, by name."""
    files = {name.split(".")[1]: index.companion(name) for name in VARIANTS}
    return {name: path for name, path in files.items() if path.is_file()}


def weigh(searcher: Searcher) -> list[Size]:
    """Weigh the models and their spaces."""
    index = searcher.index
    teacher = searcher.models["teacher"].spec if "teacher" in searcher.models else index.manifest.teacher
    models = {"student": index.model_file}
    if teacher and is_file_spec(teacher):
        models["teacher"] = Path(teacher)
    sizes = [
        Size(name, _bytes_of(models.get(name)), space, _bytes_of(index.data / f"{name}.faiss"))
        for name, space in index.manifest.spaces.items()
    ]
    return sizes + [Size(name, _bytes_of(path)) for name, path in find_variants(index).items()]


def _bytes_of(path: Path | None) -> int | None:
    return path.stat().st_size if path and path.is_file() else None
