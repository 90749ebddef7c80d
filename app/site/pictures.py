"""The pictures of a site: each photo small, for the lists, and larger, for the large view."""

from collections.abc import Sequence

from PIL import Image

from app.site.folder import DATA, SiteFolder
from index.errors import ImageError
from index.images.decode import decode, encode
from index.images.sources import image_at
from index.parallel import WORKERS, bounded_map
from index.progress import count, note, progress
from index.stores.records import Item

SMALL, LARGE = 320, 960  # pixels of the longer side
QUALITY = {SMALL: 68, LARGE: 76}  # of the WebP
NAMES = {SMALL: f"{DATA}/pictures/{{digest}}.s.webp", LARGE: f"{DATA}/pictures/{{digest}}.l.webp"}


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
        for made in bounded_map(make, items, 4 * WORKERS):
            if isinstance(made, str):
                failed.append(made)
            else:
                for name, data in made.items():
                    folder.write(name, data)
            bar.update()
    if failed:
        note(f"{count(len(failed), 'photo')} without a picture, as {failed[0]}. Index again with --update.")
    return {"small": NAMES[SMALL], "large": NAMES[sizes[0]]}
