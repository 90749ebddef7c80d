"""Photos that ship inside scikit-image and scikit-learn, cut into views with known right answers."""

import csv
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from index.errors import UsageError
from index.images.decode import read_photo
from index.images.file import ImageFile

PHOTOS = {
    "skimage": [
        *("data/astronaut.png data/brick.png data/camera.png data/cell.png data/chelsea.png".split()),
        *("data/clock_motion.png data/coffee.png data/coins.png data/grass.png data/gravel.png".split()),
        *("data/hubble_deep_field.jpg data/ihc.png data/microaneurysms.png data/moon.png".split()),
        *("data/motorcycle_left.png data/page.png data/retina.jpg data/rocket.jpg".split()),
    ],
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
}
GRID = 2  # places along each side of a photo
GALLERY_VIEWS, QUERY_VIEWS = 5, 2  # of each place
SIDE = 256


def make_sample_photos(out: Path) -> int:
    """Cut every photo into places and every place into overlapping views of varied light and angle.

    Args:
        out: Folder to fill: `gallery/`, `queries/`, and `gallery.csv` and `queries.csv`, with the place as
            label, so that a query's right answers are the gallery's views of the same place.

    Returns:
        How many photos were cut.
    """
    rng = np.random.default_rng(0)
    rows: dict[str, list[tuple[str, str]]] = {"gallery": [], "queries": []}
    photos = _find_photos()
    for split in rows:
        (out / split).mkdir(parents=True, exist_ok=True)
    for path in photos:
        photo = read_photo(ImageFile(path, path.name)).image
        photo.thumbnail((GRID * 1.25 * SIDE,) * 2)
        for place in range(GRID * GRID):
            label = f"{path.stem}-{place}"
            for view in range(GALLERY_VIEWS + QUERY_VIEWS):
                split = "gallery" if view < GALLERY_VIEWS else "queries"
                name = f"{split}/{label}-{view}.jpg"
                make_view(photo, place, rng).save(out / name, quality=90)
                rows[split].append((name, label))
    for split, labelled in rows.items():
        with (out / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *labelled])
    return len(photos)


def make_view(photo: Image.Image, place: int, rng: np.random.Generator) -> Image.Image:
    """Take a view of a place, counted row by row: a random part, turned, mirrored or not, in other light."""
    row, column = divmod(place, GRID)
    share = rng.uniform(0.6, 0.95)
    width, height = share * photo.width / GRID, share * photo.height / GRID
    middle_x = (column + 0.5 + (1 - share) * rng.uniform(-0.5, 0.5)) * photo.width / GRID
    middle_y = (row + 0.5 + (1 - share) * rng.uniform(-0.5, 0.5)) * photo.height / GRID
    turn, mirror = math.radians(rng.uniform(-15, 15)), rng.choice([-1, 1])
    # From a pixel of the view to a pixel of the photo: mirror, scale, turn, move to the middle of the view.
    # At its corners a turned view may look beyond its place, as another photo of the place would.
    a, b = mirror * math.cos(turn) * width / SIDE, -math.sin(turn) * height / SIDE
    d, e = mirror * math.sin(turn) * width / SIDE, math.cos(turn) * height / SIDE
    c, f = middle_x - (a + b) * SIDE / 2, middle_y - (d + e) * SIDE / 2
    view = photo.transform((SIDE, SIDE), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = change(view).enhance(rng.uniform(0.6, 1.4))
    return view


def _find_photos() -> list[Path]:
    found = []
    for package, names in PHOTOS.items():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise UsageError(
                f"The demo shows photos of {package}, which is not installed. "
                'Install it with: pip install -e ".[demo]", or give --images FOLDER.'
            )
        folder = Path(spec.submodule_search_locations[0])
        found += [folder / name for name in names if (folder / name).is_file()]
    return found
