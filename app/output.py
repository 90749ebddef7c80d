"""What `search` and `evaluate` print, for people and for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.errors import ImageError, RetrievalError
from index.evaluation.revisited import PROTOCOLS
from index.images.decode import read_photo
from index.images.file import ImageFile
from index.progress import printable
from index.search import RERANK, open_searcher
from index.stores.filters import Filter
from index.stores.records import Item
from index.teachers.spec import TeacherSpec

AGREEMENT = ["overlap@10", "RBO"]


@dataclass(frozen=True)
class Answer:
    """What one query found, best first: the items with their similarities, or why it could not be read."""

    query: str
    hits: list[tuple[Item, float]]
    error: str | None = None


@dataclass(frozen=True)
class Answers:
    """Answers to several queries in one mode."""

    mode: str
    answers: list[Answer]

    @property
    def exit_code(self) -> int:
        """1 where a query could not be read."""
        return int(any(answer.error for answer in self.answers))

    def as_text(self) -> str:
        """Format lines of rank, similarity and path under each query."""
        lines = []
        for answer in self.answers:
            lines.append(f"{answer.query}: {answer.error}" if answer.error else answer.query)
            lines += [
                f"{rank:4} {score:.4f} {item.path}" for rank, (item, score) in enumerate(answer.hits, 1)
            ]
        return "\n".join(map(printable, lines))

    def as_dict(self) -> dict[str, Any]:
        """Return the same as one object."""
        return {
            "mode": self.mode,
            "queries": [
                {
                    "query": answer.query,
                    "error": answer.error,
                    "results": [
                        {
                            "rank": rank,
                            "score": round(score, 6),
                            "path": item.path,
                            "name": item.name,
                            "copies": [copy.path for copy in item.copies],
                        }
                        for rank, (item, score) in enumerate(answer.hits, 1)
                    ],
                }
                for answer in self.answers
            ],
        }


def search_files(
    index: str | Path,
    queries: Sequence[Path],
    k: int,
    mode: str,
    teacher: TeacherSpec,
    device: str,
    wanted: Filter | None = None,
    model: Path | None = None,
) -> Answers:
    """Search an index with files; one that cannot be read is answered with the reason.

    Args:
        index: An index folder, or the address of a Milvus collection.
        queries: Image files.
        k: How many results each.
        mode: How to search.
        teacher: Where the teacher is now.
        device: `auto`, `cpu` or `cuda`.
        wanted: Which results are wanted; None wants all.
        model: As for `open_store`.

    Raises:
        RetrievalError: The index or a model cannot be used.
    """
    asks_teacher = mode in {"teacher", RERANK}
    searcher = open_searcher(index, teacher, device, with_teacher=asks_teacher, model=model)
    if asks_teacher and searcher.teacher_missing:
        raise RetrievalError(searcher.teacher_missing)
    side = max(model.side for model in searcher.models.values())
    answers = []
    for query in queries:
        try:
            photo = read_photo(ImageFile(query.absolute(), query.name), side)
            found = searcher.find([photo], mode, k, wanted)
        except ImageError as reason:
            answers.append(Answer(str(query), [], str(reason)))
            continue
        hits = [(searcher.index.items[i], score) for i, score in found.results.hits()]
        answers.append(Answer(str(query), hits))
    return Answers(mode, answers)


def format_scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Format a table of scores on labelled photos, with one line a mode, in percent."""
    queries = next(iter(scores.values()))["queries"]
    table = _percent_table(["mAP", "R@1", "R@5", *AGREEMENT], scores)
    return f"{table}\n{queries:.0f} queries; figures in %."


def format_revisited(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Format a table of scores on revisited ground truth, with one line a mode and protocol, in percent."""
    names = ["mAP", "mP@1", "mP@5", "mP@10"]
    lines = {
        f"{mode} {protocol}": {name: row.get(f"{name} {protocol}") for name in names}
        | {name: row.get(name) for name in AGREEMENT}
        for mode, row in scores.items()
        for protocol in PROTOCOLS
    }
    first = next(iter(scores.values()))
    answerable = ", ".join(f"{first[f'queries {protocol}']:.0f} {protocol}" for protocol in PROTOCOLS)
    return (
        f"{_percent_table([*names, *AGREEMENT], lines)}\n"
        f"{first['queries']:.0f} queries ({answerable}) against {first['database']:.0f} images; "
        "E easy, M medium, H hard; figures in %."
    )


def _percent_table(names: Sequence[str], lines: Mapping[str, Mapping[str, float | None]]) -> str:
    def cell(value: float | None) -> str:
        return f"{'-':>12}" if value is None else f"{100 * value:12.1f}"

    head = f"{'mode':13}" + "".join(f"{name:>12}" for name in names)
    return "\n".join(
        [head, *(f"{line:13}{''.join(cell(row.get(n)) for n in names)}" for line, row in lines.items())]
    )
