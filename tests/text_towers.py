"""A pair of towers whose joint space is known: photos by mean colours, words by the colours they name."""

import json
from pathlib import Path

import numpy as np
import onnx
from conftest import write_embedder
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from index.text.models import COMMON

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 50, 220),
    "yellow": (230, 220, 40), "white": (245, 245, 245), "black": (12, 12, 12),
}  # fmt: skip
DIM = 12
PAD, UNKNOWN, END = "[PAD]", "[UNK]", "[END]"
VOCABULARY = [PAD, UNKNOWN, END, *COLOURS, *COMMON, "shoes"]


def write_photos(folder: Path, each: int = 10) -> Path:
    """Write so many noisy photos of each colour; the first letters of their names are the colour's."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for i in range(each):
            coarse = np.clip(random.normal(colour, 15, (5, 6, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(coarse).resize((60, 50), Image.Resampling.BICUBIC).save(folder / f"{name}{i}.png")
    return folder


def write_image_tower(path: Path) -> Path:
    """Write the tower of the images."""
    return write_embedder(path, dim=DIM, side=32, seed=5)


def word_vectors(gap: float) -> NDArray[np.float32]:
    """Vectors of the vocabulary, `(words, DIM)`: where the image tower puts a photo of that colour only.

    Words that name no colour mean a little of everything. All are moved by the same `gap`, farther than
    what tells them apart, in a direction in which photos of one colour do not differ, as in CLIP.
    """
    weights = np.random.default_rng(5).normal(size=(48, DIM)).astype(np.float32)  # as `write_embedder` has it
    random = np.random.default_rng(1)
    rows = random.normal(size=(len(VOCABULARY), DIM)) * 0.05
    for name, colour in COLOURS.items():
        flat = np.repeat(np.array(colour, np.float32) - 127.5, 16) @ weights  # channel by channel
        rows[VOCABULARY.index(name)] = flat / np.linalg.norm(flat)
    rows[:3] = 0  # what every text has
    channels = weights.reshape(3, 16, DIM).sum(axis=1)
    aside = np.linalg.svd(channels)[2][-1]
    return (rows + gap * aside).astype(np.float32)


def write_text_tower(
    path: Path,
    gap: float = 1.0,
    mask: bool = True,
    length: int | str = "t",
    outputs: tuple = ("text_embeds",),
) -> Path:
    """Write the tower of the texts: the mean over the words, with a mask or over all that is filled in."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
        helper.make_node("Cast", ["attention_mask" if mask else "all", ], ["flat"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flat", "last"], ["share"]),
        helper.make_node("Mul", ["tokens", "share"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["share", "middle"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["text_embeds"]),
        helper.make_node("Neg", ["text_embeds"], ["opposite"]),
    ]  # fmt: skip
    constants = {"table": word_vectors(gap), "last": np.array([2]), "middle": np.array([1])}
    if not mask:
        nodes.insert(0, helper.make_node("Sign", ["one"], ["positive"]))
        nodes.insert(0, helper.make_node("Add", ["input_ids", "unit"], ["one"]))
        nodes.insert(2, helper.make_node("Identity", ["positive"], ["all"]))
        constants["unit"] = np.array([1])
    inputs = ["input_ids", "attention_mask"] if mask else ["input_ids"]
    shapes = {"text_embeds": ["n", DIM], "opposite": ["n", DIM], "tokens": ["n", "t", DIM]}
    graph = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", length]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_tokenizer(path: Path, most: int | None = None) -> Path:
    """Write the tokenizer of these words, as CLIP's: an end after every text; and what it says of lengths."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, VOCABULARY.index(END))]
    )
    tokenizer.save(str(path))
    if most is not None:
        told = {"model_max_length": most, "pad_token": {"content": PAD}}
        path.with_name("tokenizer_config.json").write_text(json.dumps(told))
    return path
