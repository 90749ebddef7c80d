"""The gallery of a site: photos in parts by their digests, so that a change touches few; their pictures."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.site.folder import DATA, SiteFolder
from index.errors import ImageError
from index.images.decode import decode, encode
from index.images.sources import image_at
from index.parallel import CORES, bounded_map
from index.progress import count, note, progress
from index.search import Searcher
from index.stores.base import Store
from index.stores.records import CHUNK, Item
from index.vectors import Ids, Vectors, is_float

PART = 4096  # photos of a part, at most about
LEVELS = 4096  # steps from 0 to 1 that the numbers of a row are written in: 99.9 % of the nearest ten stay
TEACHER_DEPTH = 10  # results of the teacher that are kept for each photo
SMALL, LARGE = 320, 960  # pixels of the longer side
QUALITY = {SMALL: 68, LARGE: 76}  # of the WebP
NAMES = {SMALL: f"{DATA}/pictures/{{digest}}.s.webp", LARGE: f"{DATA}/pictures/{{digest}}.l.webp"}


def divide(digests: list[str]) -> list[Ids]:
    """Divide items into the parts of a site: by rising digest, cut by its first bits; none is empty."""
    order, shares = np.argsort(np.array(digests), kind="stable"), 1
    while len(digests) / shares > PART:
        shares *= 2
    first = np.array([int(digests[i][:8], 16) * shares >> 32 for i in order])
    parts = np.split(order, np.searchsorted(first, np.arange(1, shares)))
    return [part for part in parts if len(part)]


def write_gallery(
    folder: SiteFolder, index: Store, items: list[Item], parts: list[Ids]
) -> list[dict[str, Any]]:
    """Write the rows and the facts of each part, and return what the manifest says of them."""
    return [
        {
            "count": len(ids),
            "rows": folder.pack(pack_rows(index.rows("student", ids))),
            "facts": folder.pack(facts_of(index, items, ids)),
        }
        for ids in parts
    ]


def pack_rows(rows: Vectors, levels: float = LEVELS) -> bytes:
    """Write `(n, dim)` rows as whole numbers of 16 bits, folded: all low bytes, then all high ones.

    `(n, bits / 8)` codes become words of 32 bits, the last one filled up with zeros.
    """
    if not is_float(rows):
        return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    folded = fold(np.round(rows * levels))
    return np.ascontiguousarray(folded.reshape(-1, 1).view(np.uint8).T).tobytes()


def fold(whole: NDArray[Any]) -> NDArray[np.uint16]:
    """Turn `(n, dim)` whole numbers into `(dim, n)`: 0, -1, 1, -2 into 0, 1, 2, 3; so they pack best."""
    signed = whole.astype(np.int16)
    return np.ascontiguousarray((signed << 1 ^ signed >> 15).astype("<u2").T)


def facts_of(index: Store, items: list[Item], ids: Ids) -> bytes:
    """What a site says of some photos: names below the folder that was indexed, never where that lies."""
    metadata = [index.metadata_of(int(i)) for i in ids]
    columns = sorted({name for known in metadata for name in known})
    facts = {
        "digests": [items[i].digest for i in ids],
        "names": [items[i].name for i in ids],
        "columns": {name: [known.get(name, "") for known in metadata] for name in columns},
    }
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


def rank_by_teacher(searcher: Searcher, parts: list[Ids]) -> bytes | None:
    """What the teacher ranks first for each photo, as int32 ids of the site; None without its vectors."""
    if "teacher" not in searcher.stored_modes:
        return None
    order = np.concatenate(parts)
    place, lists = np.argsort(order), np.full((len(order), TEACHER_DEPTH), -1, "<i4")
    for start in range(0, len(order), CHUNK):
        some = slice(start, start + CHUNK)
        found = searcher.search_items(order[some].tolist(), "teacher", TEACHER_DEPTH).ids
        lists[some, : found.shape[1]] = np.where(found >= 0, place[found], -1)
    return lists.tobytes()


def write_pictures(folder: SiteFolder, items: Sequence[Item], large: bool = True) -> dict[str, str]:
    """Write pictures that are not there, note photos that are gone, and return templates of the names."""
    sizes = (LARGE, SMALL) if large else (SMALL,)

    def make(item: Item) -> dict[str, bytes] | str:
        names = {size: NAMES[size].format(digest=item.digest) for size in sizes}
        missing = {size: name for size, name in names.items() if not folder.has(name)}
        made: dict[str, bytes] = {}
        if not missing:
            return made
        try:
            data = image_at(item.path, item.name).read_unchanged(item.digest)
            image = decode(data, item.name, max(missing)).image
        except ImageError as reason:
            return f"{item.name}: {reason}"
        for size, name in missing.items():
            image.thumbnail((size, size), Image.Resampling.BICUBIC)
            made[name] = encode(image, "WEBP", quality=QUALITY[size], method=4)
        return made

    failed = []
    with progress(len(items), "Pictures") as bar:
        for made in bounded_map(make, items, 4 * CORES):
            if isinstance(made, str):
                failed.append(made)
            else:
                for name, data in made.items():
                    folder.write(name, data)
            bar.update()
    if failed:
        note(f"{count(len(failed), 'photo')} without a picture, as {failed[0]}. Index again with --update.")
    return {"small": NAMES[SMALL], "large": NAMES[sizes[0]]}
