"""Text models: tokens in, one vector a text out."""

import json
import sys

import numpy as np
import onnx
import pytest
from conftest import write_embedder
from text_towers import DIM, VOCABULARY, word_vectors, write_text_tower, write_tokenizer

from index.embedders.options import EmbedderOptions
from index.errors import UsageError
from index.text.models import LARGEST, LONGEST, Text, TextEmbedder, open_text

END = VOCABULARY.index("[END]")


def opened(folder, options: dict | None = None, most: int | None = None, **tower) -> TextEmbedder:
    tokenizer = write_tokenizer(folder / "tokenizer.json", most)
    model = write_text_tower(folder / "text.onnx", **tower)
    return open_text(str(model), tokenizer, "cpu", EmbedderOptions(**(options or {})))


def embed(model: TextEmbedder, *texts: str) -> np.ndarray:
    return model.embed([model.prepare(Text(text)) for text in texts])


def mean_of(*words: str) -> np.ndarray:
    mean = word_vectors(1.0)[[VOCABULARY.index(word) for word in words]].mean(0)
    return mean / np.linalg.norm(mean)


def test_texts_are_cut_into_tokens_and_embedded(tmp_path):
    model = opened(tmp_path)
    rows = embed(model, "Red  shoes", "blue")
    assert rows.dtype == np.float32
    assert model.dim == DIM
    assert np.allclose(rows[0], mean_of("red", "shoes", "[END]"), atol=1e-5)
    assert np.allclose(rows[1], mean_of("blue", "[END]"), atol=1e-5)


@pytest.mark.parametrize("tower", [{"length": 6}, {"mask": False, "most": 6}, {"mask": False, "length": 6}])
def test_texts_become_as_long_as_the_model_wants_them(tmp_path, tower):
    model = opened(tmp_path, **tower)
    tokens = model.prepare(Text("red shoes"))
    assert len(tokens.ids) == 6
    assert sum(tokens.attention_mask) == 3
    long = model.prepare(Text("red shoes " * 20))
    assert len(long.ids) == 6
    assert long.ids[-1] == END  # the end stays, where CLIP reads the text off
    filled = [] if tower.get("mask", True) else ["[PAD]"] * 3
    assert np.allclose(embed(model, "red shoes")[0], mean_of("red", "shoes", "[END]", *filled), atol=1e-5)


def test_with_a_mask_texts_are_cut_and_not_filled(tmp_path):
    model = opened(tmp_path, most=6)
    assert len(model.prepare(Text("red")).ids) == 2
    assert len(model.prepare(Text("red " * 20)).ids) == 6


def test_the_usual_output_is_taken_and_another_can_be(tmp_path):
    both = ("opposite", "text_embeds")
    usual, other = opened(tmp_path, outputs=both), opened(tmp_path, {"output": "opposite"}, outputs=both)
    assert np.allclose(embed(usual, "red"), -embed(other, "red"))
    assert usual.key != other.key
    with pytest.raises(UsageError, match="--text-option output=nothing is none of opposite, text_embeds"):
        opened(tmp_path, {"output": "nothing"}, outputs=both)


@pytest.mark.parametrize(("pool", "words"), [(None, ["red", "shoes", "[END]"]), ("cls", ["red"])])
def test_tokens_are_pooled_without_what_was_filled_in(tmp_path, pool, words):
    model = opened(tmp_path, {"pool": pool}, length=9, outputs=("tokens",))
    assert np.allclose(embed(model, "red shoes")[0], mean_of(*words), atol=1e-5)


def test_one_number_for_a_text_is_no_vector(tmp_path):
    path = write_text_tower(tmp_path / "text.onnx")
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["text_embeds"], ["number"], keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("number", onnx.TensorProto.FLOAT, []))
    onnx.save(model, path)
    with pytest.raises(UsageError, match="the output number, which is not one vector a text"):
        open_text(str(path), write_tokenizer(tmp_path / "tokenizer.json"), "cpu", EmbedderOptions())


def test_a_model_of_images_is_refused(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(UsageError, match=r"takes images .* tensor.uint8.*Export the text part alone"):
        open_text(str(write_embedder(tmp_path / "images.onnx")), tokenizer, "cpu", EmbedderOptions())


def test_the_tokenizer_is_needed_and_is_json_of_a_tokenizer(tmp_path):
    model = str(write_text_tower(tmp_path / "text.onnx"))
    with pytest.raises(UsageError, match=r"Give its tokenizer\.json with --tokenizer"):
        open_text(model, None, "cpu", EmbedderOptions())
    wrong = tmp_path / "wrong.json"
    with pytest.raises(UsageError, match=r"wrong\.json does not exist"):
        open_text(model, wrong, "cpu", EmbedderOptions())
    with pytest.raises(UsageError, match="no file of at most 64 MiB"):
        open_text(model, tmp_path, "cpu", EmbedderOptions())
    for content in (b"\x80\x04pickle", b"{}", b"[[[", json.dumps({"model": 1}).encode()):
        wrong.write_bytes(content)
        with pytest.raises(UsageError, match=r"is not a tokenizer\.json"):
            open_text(model, wrong, "cpu", EmbedderOptions())
    with wrong.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(UsageError, match="no file of at most 64 MiB"):
        open_text(model, wrong, "cpu", EmbedderOptions())
    good = write_tokenizer(tmp_path / "tokenizer.json", 6)
    good.with_name("tokenizer_config.json").write_text("{")
    with pytest.raises(UsageError, match=r"tokenizer_config.json is not JSON"):
        open_text(model, good, "cpu", EmbedderOptions())


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    tokenizer, model = write_tokenizer(tmp_path / "tokenizer.json"), write_text_tower(tmp_path / "text.onnx")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r'pip install -e ".\[text\]"'):
        open_text(str(model), tokenizer, "cpu", EmbedderOptions())


@pytest.mark.parametrize("words", ["", " \n ", "x" * (LONGEST + 1), "red\x1b[2Jshoes", "red\udcff"])
def test_what_is_no_text_is_refused(words):
    with pytest.raises(UsageError, match="1 to 1000 printable characters"):
        Text(words)


@pytest.mark.parametrize(
    "words",
    ["\u0645\u06cc\u200c\u0634\u0648\u062f", "\u0930\u094d\u200d\u092f", "\U0001f469\u200d\U0001f373"],
)
def test_letters_may_be_joined_by_what_has_no_width(words):
    """In Persian, in Hindi, and in a picture of a cook."""
    assert Text(words).words == words


def test_the_keys_of_two_tokenizers_differ(tmp_path):
    assert opened(tmp_path).key == opened(tmp_path).key != opened(tmp_path, most=6).key


def test_multipart_has_no_form_for_texts():
    with pytest.raises(UsageError, match="--text-option dialect=infinity or jina"):
        open_text("https://example.com/v1/embeddings", None, "cpu", EmbedderOptions(dialect="multipart"))
