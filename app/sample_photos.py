"""Photos that ship inside scikit-image and scikit-learn, cut into views whose right answers are known."""

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from index.errors import UsageError
from index.images import ImageFile, read_photo

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


def make_sample_photos(out: Path, seed: int = 0) -> int:
    """Cut every photo into places and every place into overlapping views of varied light and angle.

    Args:
        out: Folder to fill: `gallery/`, `queries/`, and `gallery.csv` and `queries.csv`, whose label is the
            place, so that a query's right answers are the gallery's views of the same place.
        seed: Of the views.

    Returns:
        How many photos were cut.

    Raises:
        UsageError: The packages are not installed.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[tuple[str, str]]] = {"gallery": [], "queries": []}
    photos = _find_photos()
    for split in rows:
        (out / split).mkdir(parents=True, exist_ok=True)
    for path in photos:
        photo = read_photo(ImageFile(path, path.name)).image
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
    """Take one view of a place: a random part of it, turned a little, mirrored or not, in other light.

    Args:
        photo: The whole photo.
        place: Which cell of the grid, row by row.
        rng: Source of chance.
    """
    row, column = divmod(place, GRID)
    width, height = photo.width / GRID, photo.height / GRID
    share = rng.uniform(0.6, 0.95)
    left = (column + rng.uniform(0, 1 - share)) * width
    top = (row + rng.uniform(0, 1 - share)) * height
    # Pixels beyond the cell may come in at the corners of the turned view, as they would in a photo.
    turned = photo.rotate(
        rng.uniform(-15, 15),
        Image.Resampling.BICUBIC,
        center=(left + share * width / 2, top + share * height / 2),
    )
    view = turned.resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + share * width, top + share * height)
    )
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = change(view).enhance(rng.uniform(0.6, 1.4))
    return view


def _find_photos() -> list[Path]:
    found = []
    for package, names in PHOTOS.items():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise UsageError(
                f"{package}, whose photos the demo shows, is not installed. "
                "Install it with: pip install 'retrieval[demo]', or give --images FOLDER."
            )
        folder = Path(spec.submodule_search_locations[0])
        found += [folder / name for name in names if (folder / name).is_file()]
    return found
