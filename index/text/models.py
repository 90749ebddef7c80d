"""Models that map words to vectors of the space where their image model puts images, as those of CLIP do."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import Embedder, unit_rows
from index.embedders.http import EndpointEmbedder
from index.embedders.http_formats import TEXT, Upload
from index.embedders.onnx import OnnxModel, open_session
from index.embedders.onnx_generic import find_output
from index.embedders.options import EmbedderOptions
from index.embedders.registry import is_endpoint
from index.embedders.teacher_space import TeacherSpace
from index.errors import UsageError, needs
from index.io import content_digest
from index.vectors import Vectors

if TYPE_CHECKING:
    import onnxruntime as ort
    from tokenizers import Encoding, Tokenizer

LONGEST = 1000  # characters of a query
LARGEST = 64 << 20  # bytes of a tokenizer's file
TOKENS = 512  # of a text at most, where neither model nor tokenizer sets an end
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
NUMBERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
OUTPUTS = ("text_embeds", "sentence_embedding")  # as exporters call the vector of a text


@dataclass(frozen=True)
class Text:
    """A query in words. It has the name and the digest that an image would have."""

    words: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", " ".join(self.words.split()))
        # Format characters join letters in Persian and Hindi, and parts of emoji.
        shown = all(letter.isprintable() or category(letter) == "Cf" for letter in self.words)
        if not self.words or len(self.words) > LONGEST or not shown:
            raise UsageError(f"A search by words takes 1 to {LONGEST} printable characters.")

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f'"{self.words}"'

    location = name

    @property
    def digest(self) -> str:
        """Identity, which no image has."""
        return content_digest(f"text {self.words}".encode())


def open_text(spec: str, tokenizer: Path | None, device: str, options: EmbedderOptions) -> Embedder:
    """Open a text model: the path of an ONNX file, with its tokenizer.json, or the address of an endpoint."""
    if is_endpoint(spec):
        return TextEndpoint(spec, options)
    if tokenizer is None:
        raise UsageError(f"{spec} takes tokens. Give its tokenizer.json with --tokenizer.")
    return TextEmbedder(Path(spec), tokenizer, device, options)


class TextEndpoint(EndpointEmbedder):
    """An endpoint that is sent texts."""

    def __init__(self, url: str, options: EmbedderOptions) -> None:
        """As `EndpointEmbedder`, if the dialect has a form for texts."""
        if options.dialect == "multipart":
            raise UsageError("Dialect multipart sends files. Give --text-option dialect=infinity or jina.")
        super().__init__(url, options)
        self.key += " texts"  # whose answers lie in a ledger of their own

    def prepare(self, photo: Any) -> Upload:
        """Make the input for one `Text`."""
        return Upload(photo.words.encode(), TEXT, photo.digest)


class TextEmbedder(OnnxModel):
    """An ONNX file that takes tokens, with its tokenizer."""

    def __init__(self, path: Path, tokenizer: Path, device: str, options: EmbedderOptions) -> None:
        """Find out what goes in and what comes out. Of the options `output` and `pool` count."""
        super().__init__(path, open_session(path, device), options)
        self._inputs = _find_inputs(self.session)
        count, length = (axis if isinstance(axis, int) else None for axis in self._inputs[IDS].shape)
        self._count = count or 1
        self._tokenizer = _open_tokenizer(tokenizer, length, MASK not in self._inputs)
        self._output = find_output(self.session, options.output, OUTPUTS, "--text-option output=")
        self.dim = self._answer(self._tokenizer.encode("a photo")).shape[0]
        told = content_digest(self._tokenizer.to_str().encode())
        feeding = content_digest(f"{told} {self._output} {options.pool}".encode())
        self.key += f":{feeding}"

    def prepare(self, photo: Any) -> "Encoding":
        """Cut one `Text` into tokens, as many as the model takes."""
        return self._tokenizer.encode(photo.words)

    def embed(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Map n prepared texts to `(n, dim)` float32 unit rows, as `unit_rows`."""
        return unit_rows(np.stack([self._answer(one) for one in batch]), self.name)

    def _answer(self, tokens: "Encoding") -> NDArray[np.float32]:
        """Map one text to a raw vector: alone, so that no other has a say in its padding."""
        known = {IDS: tokens.ids, MASK: tokens.attention_mask, TYPES: tokens.type_ids}
        feed = {
            put.name: np.repeat(np.array([known[kind]], NUMBERS[put.type]), self._count, axis=0)
            for kind, put in self._inputs.items()
        }
        rows = self._run(self._output, feed, f"{len(tokens.ids)} tokens")
        row = np.asarray(rows, np.float32)[0] if rows.ndim else rows
        if row.ndim == 2 and len(row) == len(tokens.ids):  # a sequence of vectors
            row = row[0] if self.options.pool == "cls" else row[np.array(tokens.attention_mask) > 0].mean(0)
        if row.ndim != 1:
            raise UsageError(
                f"{self.name} has the output {self._output}, which is not one vector a text. "
                "Give --text-option output=NAME, or export it with its pooling."
            )
        return row


def _find_inputs(session: "ort.InferenceSession") -> dict[str, Any]:
    """Find the inputs by what they take; a single one of another name takes the tokens."""
    inputs = {put.name: put for put in session.get_inputs()}
    if len(inputs) == 1:
        inputs = {IDS: next(iter(inputs.values()))}
    wrong = [
        f"{put.name} {put.shape} {put.type}"
        for name, put in inputs.items()
        if name not in (IDS, MASK, TYPES) or put.type not in NUMBERS or len(put.shape) != 2
    ]
    if wrong or IDS not in inputs:
        raise UsageError(
            f"This ONNX file takes {'; '.join(wrong) or 'no tokens'}, not {IDS} and {MASK} of two axes. "
            "Export the text part alone."
        )
    return inputs


def _open_tokenizer(path: Path, fixed: int | None, fill: bool) -> "Tokenizer":
    """Read a tokenizer, and set how long texts become, by a `tokenizer_config.json` beside it too.

    A model takes a `fixed` number of tokens, or any; one without a mask has learnt short texts `fill`ed up.
    """
    with needs("text"):
        from tokenizers import Tokenizer

    if not path.exists():
        raise UsageError(f"{path} does not exist. Give a tokenizer.json.")
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise UsageError(f"{path} is no file of at most {LARGEST >> 20} MiB. Give a tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # tokenizers raises nothing more special
        raise UsageError(f"{path} is not a tokenizer.json that can be read.") from error
    beside = path.with_name("tokenizer_config.json")
    told: Any = {}
    if beside.is_file() and beside.stat().st_size < LARGEST:
        try:
            told = json.loads(beside.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{beside} is not JSON. Copy it again, or remove it.") from error
    told = told if isinstance(told, dict) else {}
    most = told.get("model_max_length")  # a huge number stands for none
    known = fixed or (tokenizer.truncation or {}).get("max_length")
    if known is None and isinstance(most, int) and 0 < most <= 1 << 16:
        known = most
    tokenizer.enable_truncation(known or TOKENS)
    padding = tokenizer.padding or {}
    tokenizer.no_padding()
    if known and (fixed or fill):
        token = told.get("pad_token") or padding.get("pad_token", "[PAD]")
        token = token.get("content", "") if isinstance(token, dict) else str(token)
        number = tokenizer.token_to_id(token)
        number = padding.get("pad_id", 0) if number is None else number
        tokenizer.enable_padding(length=known, pad_id=number, pad_token=token)
    return tokenizer


# Whose mean stands for that of all texts: what photos show, in as many kinds as possible.
COMMON = (
    "person man woman child baby crowd face hand dog cat bird horse cow fish insect tree flower "
    "grass leaf forest mountain beach sea river sky cloud snow rain sunset street road bridge house building "
    "church door window room kitchen bed chair table lamp car bus train bicycle boat plane bottle cup plate "
    "bread fruit vegetable meat cake shirt dress shoe hat bag watch phone computer book sign"
).split()


@dataclass(frozen=True)
class TextQueries:
    """Makes vectors of words, so that a teacher's text model searches the galleries of its students.

    Texts and images of a model such as CLIP lie in two cones, far apart: a text is the mean of all texts and
    what it says. What it says is what counts: the difference from the mean of many texts goes through the
    teacher space, without the mean of the images, which is no text's. Whatever all texts have in common, the
    gap between the cones first of all, cancels.
    """

    model: Embedder  # the text model
    dim: int  # length of the teacher's vectors
    space: TeacherSpace | None  # of the student, which may have come without it

    def embed(self, *texts: Text) -> Vectors:
        """Embed texts to `(n, teacher dim)` unit rows; RetrievalError if the model or its budget fails."""
        rows = self.model.embed([self.model.prepare(text) for text in texts])  # type: ignore[arg-type]
        if rows.shape[1] != self.dim:
            raise UsageError(
                f"{self.model.name} answers with {rows.shape[1]} numbers, the teacher of this index with "
                f"{self.dim}. Give the text model that belongs to it."
            )
        return rows

    def project(self, rows: Vectors) -> Vectors:
        """Map `(n, teacher dim)` unit rows of texts to `(n, dim)` unit rows among the student's vectors."""
        return self._centred.project(rows)

    @cached_property
    def _centred(self) -> TeacherSpace:
        assert self.space is not None
        return replace(self.space, mean=self.embed(*map(Text, COMMON)).mean(axis=0))
