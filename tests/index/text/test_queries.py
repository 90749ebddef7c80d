"""Words through the teacher space: what all texts have in common must not count."""

import numpy as np
import pytest
from text_towers import COLOURS, write_text_tower, write_tokenizer

from index.embedders.options import EmbedderOptions
from index.embedders.teacher_space import TeacherSpace
from index.errors import UsageError
from index.text.models import Text, TextQueries, open_text


@pytest.fixture
def space() -> TeacherSpace:
    rows = np.random.default_rng(3).normal(size=(40, 12)).astype(np.float32)
    return TeacherSpace.fit(rows / np.linalg.norm(rows, axis=1, keepdims=True), 5, 0.25)


class Table:
    """Embeds texts as rows that are given, plus one and the same gap."""

    name = "table"

    def __init__(self, gap: np.ndarray) -> None:
        self.gap = gap

    def prepare(self, text: Text) -> str:
        return text.words

    def embed(self, batch: list[str]) -> np.ndarray:
        rows = [np.random.default_rng(list(words.encode())).normal(size=len(self.gap)) for words in batch]
        return np.array(rows, np.float32) + self.gap


def test_the_gap_between_texts_and_images_cancels(space):
    """Whatever is added to all texts alike, the query stays; with the mean of the images it would not."""
    gaps = [np.zeros(12), np.full(12, 2.0), np.eye(12)[3] * 9]
    queries = [TextQueries(Table(gap.astype(np.float32)), 12, space) for gap in gaps]
    near, *moved = [query.project(query.embed(Text("red shoes"))) for query in queries]
    for vector in moved:
        assert np.allclose(vector, near, atol=1e-5)
    by_images = [space.project(query.embed(Text("red shoes"))) for query in queries]
    assert not np.allclose(by_images[0], by_images[1], atol=0.1)


def test_what_a_text_says_is_projected_as_what_an_image_shows(space):
    """As far from the mean of the texts as an image from that of the images: the same vector."""
    query = TextQueries(Table(np.ones(12, np.float32)), 12, space)
    text = query.embed(Text("red shoes"))
    said = text - query._centred.mean
    assert np.allclose(query.project(text), space.project(space.mean + said), atol=1e-5)
    assert np.allclose(np.linalg.norm(query.project(text), axis=1), 1, atol=1e-5)


def test_a_model_of_another_length_is_refused(tmp_path, space):
    tower, tokenizer = write_text_tower(tmp_path / "t.onnx"), write_tokenizer(tmp_path / "tokenizer.json")
    model = open_text(str(tower), tokenizer, "cpu", EmbedderOptions())
    assert TextQueries(model, 12, space).embed(*map(Text, COLOURS)).shape == (6, 12)
    with pytest.raises(UsageError, match="answers with 12 numbers, the teacher of this index with 512"):
        TextQueries(model, 512, space).embed(Text("red"))
