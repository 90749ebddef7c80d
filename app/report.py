"""What the report tab knows without measuring: the student's run, what things weigh, what was refused."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.embedder import is_file_spec
from index.search import Searcher
from index.store import COMPANIONS, Index


@dataclass(frozen=True)
class Size:
    """What one model and its space weigh; None where it is not known.

    Attributes:
        name: `student`, `teacher`, or a variant.
        model_bytes: The model's file.
        dim: Length of its vectors; None for a variant, which has no space of its own.
        vector_bytes: One stored vector.
        index_bytes: The FAISS index of its space.
        factory: FAISS factory of that index.
        recall: Recall@10 of that index against exact search.
    """

    name: str
    model_bytes: int | None
    dim: int | None = None
    vector_bytes: int | None = None
    index_bytes: int | None = None
    factory: str | None = None
    recall: float | None = None


def read_run(index: Index) -> dict[str, Any] | None:
    """What the student's `run.json` noted; None if the index has none, or one of another student."""
    try:
        run = json.loads((index.path / "run.json").read_text(encoding="utf-8"))
        made = run["export"]["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run if made == index.manifest.spaces["student"].key else None


def find_variants(index: Index) -> dict[str, Path]:
    """Smaller files of the student that the index keeps, by name."""
    files = {name.split(".")[1]: index.path / name for name in COMPANIONS if name.endswith(".onnx")}
    return {name: path for name, path in files.items() if path.is_file()}


def weigh(searcher: Searcher) -> list[Size]:
    """What the models and their spaces weigh."""
    index = searcher.index
    files: dict[str, Path | None] = {"student": index.model_file, "teacher": None, "projected": None}
    spec = index.manifest.teacher
    if "teacher" in searcher.models:
        spec = searcher.models["teacher"].spec
    if spec and is_file_spec(spec):
        files["teacher"] = Path(spec)
    sizes = []
    for name, space in index.manifest.spaces.items():
        vectors = index.vectors(name)
        sizes.append(
            Size(
                {"projected": "asymmetric"}.get(name, name),
                _file_bytes(files.get(name)),
                space.dim,
                vectors.itemsize * space.dim,
                _file_bytes(index.path / f"{name}.faiss"),
                space.factory,
                space.recall,
            )
        )
    return sizes + [Size(name, _file_bytes(path)) for name, path in find_variants(index).items()]


def count_reasons(index: Index) -> list[tuple[str, int]]:
    """Why images were refused, and how many for each reason, the commonest first."""
    return Counter(failure.reason for failure in index.failures).most_common()


def _file_bytes(path: Path | None) -> int | None:
    return path.stat().st_size if path and path.is_file() else None
