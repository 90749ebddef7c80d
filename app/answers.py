"""What `search` and `evaluate` print, for people and for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.errors import ImageError, RetrievalError
from index.images import ImageFile, read_photo
from index.search import Results, open_searcher
from index.store import Item
from index.teacher import TeacherSpec


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
        """Lines of rank, similarity and path under each query."""
        lines = []
        for answer in self.answers:
            lines.append(f"{answer.query}: {answer.error}" if answer.error else answer.query)
            lines += [
                f"{rank:4} {score:.4f} {item.path}" for rank, (item, score) in enumerate(answer.hits, 1)
            ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same as one object."""
        return {
            "mode": self.mode,
            "queries": [
                {
                    "query": answer.query,
                    "error": answer.error,
                    "results": [
                        {"rank": rank, "score": round(score, 6), "path": item.path, "name": item.name}
                        for rank, (item, score) in enumerate(answer.hits, 1)
                    ],
                }
                for answer in self.answers
            ],
        }


def search_files(
    index: Path, queries: Sequence[Path], k: int, mode: str, teacher: TeacherSpec, device: str
) -> Answers:
    """Search an index with files; one that cannot be read is answered with the reason.

    Raises:
        RetrievalError: The index or a model cannot be used.
    """
    searcher = open_searcher(index, teacher, device, with_teacher=mode == "teacher")
    if mode == "teacher" and searcher.teacher_missing:
        raise RetrievalError(searcher.teacher_missing)
    side = max(model.side for model in searcher.models.values())
    answers = []
    for query in queries:
        try:
            photo = read_photo(ImageFile(query.absolute(), query.name), side)
            found = searcher.find([photo], mode, k)
        except ImageError as reason:
            answers.append(Answer(str(query), [], str(reason)))
            continue
        answers.append(Answer(str(query), _hits(found.results, searcher.index.items)))
    return Answers(mode, answers)


def format_scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    """A table with one line a mode, in percent; for revisited ground truth one for each protocol."""
    first = next(iter(scores.values()))
    tables = [["mAP", "R@1", "R@5", "overlap@10", "RBO"]]
    if "mAP M" in first:
        tables = [[f"{name} {protocol}" for name in ("mAP", "mP@1", "mP@5", "mP@10")] for protocol in "EMH"]
        tables.append(["overlap@10", "RBO"])
    lines = []
    for names in tables:
        if any(name in row for row in scores.values() for name in names):
            lines.append("mode       " + "".join(f"{name:>12}" for name in names))
        for mode, row in scores.items():
            cells = "".join(f"{100 * row[name]:12.1f}" if name in row else f"{'-':>12}" for name in names)
            if cells.strip(" -"):
                lines.append(f"{mode:11}{cells}")
    return "\n".join([*lines, f"{first['queries']:.0f} queries; figures in %."])


def _hits(results: Results, items: Sequence[Item]) -> list[tuple[Item, float]]:
    pairs = zip(results.ids[0].tolist(), results.scores[0].tolist(), strict=True)
    return [(items[i], score) for i, score in pairs if i >= 0]
