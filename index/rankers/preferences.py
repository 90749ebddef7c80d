"""Preferences in a file: of two photos, the one that is more like a query."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from index.embedders.base import Calls
from index.embedders.options import EmbedderOptions
from index.errors import UsageError
from index.images.decode import Photo
from index.images.file import ImageFile, plain_path
from index.io import content_digest
from index.rankers.base import SHOWN, Pool, Ranker, Rows

COLUMNS = ("query", "better", "worse")


class PreferencesRanker(Ranker):
    """A .csv or .parquet file of `query,better,worse`, each a content digest or a path.

    A path is the one below the folder of images, or absolute. A photo that is in no preference about a
    query is unranked for it.
    """

    calls = Calls(batch=1)

    def __init__(self, path: Path, options: EmbedderOptions) -> None:
        """Read the file whole.

        Raises:
            UsageError: It cannot be read, or lacks a column.
        """
        try:
            if path.suffix == ".parquet":
                rows = pq.read_table(path, columns=list(COLUMNS)).to_pylist()
            else:
                with path.open(newline="", encoding="utf-8-sig") as file:
                    rows = list(csv.DictReader(file))
            pairs = [tuple(plain_path(row[column]) for column in COLUMNS) for row in rows]
        except (OSError, KeyError, TypeError, ValueError, csv.Error, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"{path} is no file of preferences, {','.join(COLUMNS)}: {reason}.") from error
        self._wins: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for query, better, worse in pairs:
            self._wins[query][better] += 1
            self._wins[query][worse] -= 1
        self.key = f"preferences:{content_digest(path.read_bytes())}"
        self.name, self.spec, self.options = path.name, str(path), options

    def prepare(self, photo: Photo) -> tuple[str, ...]:
        """What the photo may be called in the file."""
        return _names(photo, photo.digest)

    def order(self, query: tuple[str, ...], candidates: Sequence[tuple[str, ...]]) -> list[int]:
        """By preferences won less those lost; what was not compared is unranked."""
        wins = next((self._wins[name] for name in query if name in self._wins), {})
        found = [next((wins[name] for name in names if name in wins), None) for names in candidates]
        ranked = [place for place, won in enumerate(found) if won is not None]
        return sorted(ranked, key=lambda place: -(found[place] or 0))

    def lists(self, pool: Pool) -> list[Rows]:
        """Each query with the photos that were compared for it, as many to a list as may be shown."""
        rows = {
            name: row
            for row, (file, digest) in enumerate(zip(pool.files, pool.digests, strict=True))
            for name in _names(file, digest)
        }
        lists: list[Rows] = []
        for query, wins in self._wins.items():
            among = sorted({rows[name] for name in wins if name in rows} - {rows.get(query)})
            if query in rows:
                parts = (among[start : start + SHOWN] for start in range(0, len(among), SHOWN))
                lists += [(rows[query], *part) for part in parts if len(part) > 1]
        return lists


def _names(image: Photo | ImageFile, digest: str) -> tuple[str, ...]:
    below = (plain_path(image.name), plain_path(image.location)) if image.below else ()
    return (digest, *below)
