import csv

import numpy as np
import pytest
from conftest import picture
from PIL import Image

import app.sample_photos as samples
from index.errors import UsageError


@pytest.mark.slow
def test_views_of_known_places(tmp_path, monkeypatch):
    photos = samples.make_sample_photos(tmp_path)
    assert photos >= 20
    labels = {}
    for split, views in (("gallery", samples.GALLERY_VIEWS), ("queries", samples.QUERY_VIEWS)):
        with (tmp_path / f"{split}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == photos * samples.GRID**2 * views
        labels[split] = {row["label"] for row in rows}
        for row in rows[::37]:
            assert Image.open(tmp_path / row["path"]).size == (samples.SIDE, samples.SIDE)
    assert labels["gallery"] == labels["queries"]
    first = samples._find_photos()[0]
    monkeypatch.setattr(samples, "_find_photos", lambda: [first])
    assert samples.make_sample_photos(tmp_path / "again") == 1
    again = list((tmp_path / "again" / "gallery").iterdir())
    assert len(again) == samples.GRID**2 * samples.GALLERY_VIEWS
    for path in again:
        assert path.read_bytes() == (tmp_path / "gallery" / path.name).read_bytes()


def test_a_view_shows_its_place():
    photo = Image.new("RGB", (80, 80), "black")
    photo.paste(picture(0, 40, 40).point(lambda value: max(value, 60)), (40, 0))
    rng = np.random.default_rng(0)
    brightness = [
        np.mean([np.asarray(samples.make_view(photo, place, rng)).mean() for _ in range(5)])
        for place in range(4)
    ]
    assert brightness[1] > 3 * max(brightness[0], brightness[2], brightness[3])


def test_without_the_packages_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "PHOTOS", {"no_such_package": ["a.png"]})
    with pytest.raises(UsageError, match=r'pip install -e "\.\[demo\]"'):
        samples.make_sample_photos(tmp_path)
