"""What `search` and `evaluate` print, for people and for programs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.errors import ImageError, RetrievalError, UsageError
from index.evaluation.revisited import PROTOCOLS
from index.feedback import Examples
from index.images.decode import Photo, read_photo
from index.images.file import ImageFile
from index.images.left_out import EXTENSIONS
from index.progress import printable, say
from index.rankers.asking import FIRST
from index.rankers.registry import RankerSpec
from index.search import RERANK, Searcher, open_searcher
from index.stores.base import Store
from index.stores.filters import Filter
from index.teachers.spec import TeacherSpec, TextSpec
from index.text.models import Text


@dataclass(frozen=True)
class Answer:
    """What one query found, best first, as JSON has it; or why it could not be read."""

    query: str
    error: str | None = None
    same: Sequence[str] = ()  # other paths, in the index, of the very photo that was searched with
    results: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class Answers:
    """Answers to several queries in one mode."""

    mode: str
    queries: list[Answer]

    def __str__(self) -> str:
        lines = []
        for answer in self.queries:
            lines.append(f"{answer.query}: {answer.error}" if answer.error else answer.query)
            lines += [f"     itself {path}" for path in answer.same]
            if not answer.results and not answer.error:
                lines.append("     no other image matches")
            lines += [f"{hit['rank']:4} {hit['score']:.4f} {hit['path']}" for hit in answer.results]
        return "\n".join(map(printable, lines))


def search_files(
    index: str | Path,
    queries: Sequence[str],
    k: int,
    mode: str,
    teacher: TeacherSpec,
    device: str,
    wanted: Filter | None = None,
    model: Path | None = None,
    text: TextSpec | None = None,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    ranker: RankerSpec | None = None,
) -> Answers:
    """Search an index, opened as by `open_searcher`, with files or words, for k wanted results each.

    A file that cannot be read is answered with the reason. With a model of texts, what is no file and has no
    name of one is words. `like` and `unlike` are image files to find more and less of.

    Raises:
        RetrievalError: The index or a model cannot be used.
    """
    words = [query for query in queries if text is not None and _is_words(query)]
    asks_teacher = mode in {"teacher", RERANK} and len(words) < len(queries) and not ranker
    searcher = open_searcher(index, teacher, device, asks_teacher, model, (), text, ranker)
    if asks_teacher and (missing := searcher.why_not(mode)):
        or_ranker = mode == RERANK and not searcher.ranker_missing
        raise RetrievalError(missing + " Or give --ranker." * or_ranker)
    if words and (like or unlike):
        raise UsageError("--like and --unlike go with photos, and not with words.")
    examples = Examples(*([_read_example(searcher, file) for file in files] for files in (like, unlike)))
    if searcher.reranker and mode == RERANK:
        photos = [query for query in queries if query not in words]
        if price := searcher.reranker.describe_price(len(photos)):
            say(price)
        searches = _list_searches(searcher, photos, wanted, examples)
        searcher.reranker.require_room(searches, len(photos))
    answers = []
    for query in queries:
        try:
            same: list[int] = []
            if query in words:
                found = searcher.find_text(Text(query), mode, k, wanted)
            else:
                photo = _read(searcher, Path(query))
                same = searcher.index.ids_by_digest.get(photo.digest, [])
                found = searcher.find([photo], mode, k, wanted, examples)
        except ImageError as reason:
            answers.append(Answer(query, f"{reason}{_advise(query, text)}"))
            continue
        paths = [searcher.index.items[i].path for i in same]
        elsewhere = [path for path in paths if path != str(Path(query).absolute())]
        hits = enumerate(found.results.hits(), 1)
        results = [_describe(searcher.index, rank, i, score) for rank, (i, score) in hits]
        answers.append(Answer(query, None, elsewhere, results))
    return Answers(mode, answers)


def _describe(store: Store, rank: int, i: int, score: float) -> dict[str, Any]:
    item = store.items[i]
    return {
        "rank": rank,
        "score": round(score, 6),
        "path": item.path,
        "name": item.name,
        "copies": [copy.path for copy in item.copies],
        "metadata": store.metadata_of(i),
    }


def _advise(query: str, text: TextSpec | None) -> str:
    """Say what to do about a query that cannot be read, where that is known."""
    if os.path.isdir(query):  # noqa: PTH112 - `Path` raises for a text too long for a name
        return f". Name the photos in it, as {Path(query) / '*.jpg'}"
    return "" if text or not _is_words(query) else ". To search by words, give --text-teacher"


def _list_searches(
    searcher: Searcher, queries: Sequence[str], wanted: Filter | None, examples: Examples
) -> Iterator[tuple[str, list[str]]]:
    """Yield the digests of photos, and of what the student finds for each, as a ranker is shown it."""
    for query in queries:
        with suppress(ImageError):  # which is said when it is searched with
            photo = _read(searcher, Path(query))
            found = searcher.find([photo], "student", FIRST, wanted, examples).results
            yield photo.digest, searcher.digests_of(found.ids[0][found.ids[0] >= 0])


def _is_words(query: str) -> bool:
    """Whether a query names no file, there or not."""
    return Path(query).suffix.lower() not in EXTENSIONS and not os.path.exists(query)  # noqa: PTH110


def _read(searcher: Searcher, path: Path) -> Photo:
    return read_photo(ImageFile(path.absolute(), path.name), searcher.decode_side())


def _read_example(searcher: Searcher, file: str) -> Photo:
    try:
        return _read(searcher, Path(file))
    except ImageError as reason:
        raise UsageError(f"--like and --unlike take photos, and {file} is none: {reason}.") from reason


def format_scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Format a table of scores on labelled photos, with one line a mode, in percent."""
    queries = next(iter(scores.values()))["queries"]
    table = _percent_table(["mAP", "R@1", "R@5"], scores)
    return f"{table}\n{queries:.0f} queries; figures in %."


def format_revisited(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Format a table of scores on revisited ground truth, with one line a mode and protocol, in percent."""
    names = ["mAP", "mP@1", "mP@5", "mP@10"]
    lines: dict[str, dict[str, float | None]] = {}
    for mode, row in scores.items():
        for protocol in PROTOCOLS:
            of_protocol = {name: row.get(f"{name} {protocol}") for name in names}
            lines[f"{mode} {protocol}"] = {**row, **of_protocol}
    first = next(iter(scores.values()))
    answerable = ", ".join(f"{first[f'queries {protocol}']:.0f} {protocol}" for protocol in PROTOCOLS)
    return (
        f"{_percent_table(names, lines)}\n"
        f"{first['queries']:.0f} queries ({answerable}) against {first['database']:.0f} images; "
        "E easy, M medium, H hard; figures in %."
    )


def _percent_table(names: Sequence[str], lines: Mapping[str, Mapping[str, float | None]]) -> str:
    names = [*names, "overlap@10", "RBO"]
    table = [f"{'mode':13}" + "".join(f"{name:>12}" for name in names)]
    for mode, row in lines.items():
        values = [row.get(name) for name in names]
        cells = [f"{'-':>12}" if value is None else f"{100 * value:12.1f}" for value in values]
        table.append(f"{mode:13}{''.join(cells)}")
    return "\n".join(table)
