"""What all ONNX models share, and ONNX files of ours, with vectors or with binary codes beside them."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from index.device import CPU, CUDA, check_provider, choose_provider, count_gpus
from index.embedders.base import Calls, Embedder, unit_rows
from index.embedders.options import EmbedderOptions
from index.errors import UsageError, in_line, needs
from index.images.decode import Photo, square
from index.images.file import readable
from index.io import content_digest, file_digest
from index.parallel import CORES
from index.progress import count
from index.vectors import CODES, UNIT_FLOATS

if TYPE_CHECKING:
    import onnxruntime as ort

    Opened = tuple[bytes, ort.InferenceSession]  # the bytes of a file, and what runs it


BITS, ORDER = "retrieval.bits", "retrieval.bit_order"  # of the codes, in the metadata of the file
LITTLE = "little"  # bit i of a code is bit i % 8 of its byte i // 8, as NumPy calls it and FAISS has it
FORMAT = "1"  # of our ONNX files, in their metadata as `retrieval.format`
# How a tensor says, in the wire format of protobuf, in which file its values are: key, length, value.
LOCATION = re.compile(rb"\x0a\x08location\x12([\x00-\x7f]|[\x80-\xff][\x00-\x7f])")


class OnnxModel(Embedder):
    """An ONNX file, open. What goes in and what comes out is for its subclasses to say."""

    def __init__(self, path: Path, opened: "Opened", options: EmbedderOptions) -> None:
        self.data, self.session = opened  # ours may be run by another, see `index/build/openvino.py`
        digest = content_digest(self.data)
        if files := [path.parent / name for name in find_external_data(self.data)]:
            digest = content_digest("".join([digest, *map(file_digest, files)]).encode())
        self.key = f"onnx:{digest}"
        self.megabytes = sum(file.stat().st_size for file in (path, *files)) / 1e6
        self.name = readable(path.name)
        self.spec = str(path.absolute())
        self.options = options
        self.provider = self.session.get_providers()[0]
        # On a CPU by every core, with few images: more make it no faster, and the memory grows with them.
        self.calls = Calls(batch=8, concurrency=CORES) if self.provider == CPU else Calls()

    def _run(self, output: str, feed: dict[str, NDArray[Any]], what: str) -> NDArray[Any]:
        """Run a graph of others for one output; `what` it is given is for the message."""
        try:
            return self.session.run([output], feed)[0]
        except Exception as error:  # ONNX Runtime raises its own kinds, none of them exported
            raise UsageError(f"{self.name} does not run on {what}: {in_line(error, False, 200)}") from error


class OnnxEmbedder(OnnxModel):
    """An ONNX file of ours: uint8 `(n, side, side, 3)` RGB in, unit rows out, the rest in the graph.

    Of so many `bits` it answers with `(n, bits / 8)` uint8 codes instead, or, as `floats`, with unit rows of
    what they are the signs of. Both have one key.
    """

    def __init__(
        self,
        path: Path,
        device: str = "auto",
        threads: int = 0,
        bits: int = 0,
        floats: bool = False,
        opened: "Opened | None" = None,
    ) -> None:
        """Open the file, as `open_session` unless it is; UsageError: it is not ours, or has no such codes."""
        opened = opened or open_session(path, device, threads)
        if not is_ours(opened[1]):
            raise UsageError(
                f"{path} is not an embedder of this program. "
                "Make one with `retrieval distill` or `retrieval export`."
            )
        super().__init__(path, opened, EmbedderOptions())
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        try:
            self.dim, self.side = (int(self.metadata[f"retrieval.{name}"]) for name in ("dim", "size"))
            self.crop = float(self.metadata["retrieval.crop"])
            if min(self.dim, self.side) < 1 or not 0 < self.crop <= 1:
                raise ValueError(f"{self.dim} numbers for {self.crop} of {self.side} pixels")
        except (KeyError, ValueError) as error:
            raise UsageError(f"{path} is damaged ({in_line(error)}). Distil or copy it again.") from error
        self._output = "embeddings"
        if bits:
            has, order = self.metadata.get(BITS), self.metadata.get(ORDER)
            if (has, order) != (str(bits), LITTLE):
                kind = f"codes of {has} bits, not of {bits}" if has else "no codes"
                if has and order != LITTLE:
                    kind = f"codes of {has} bits in {order} bit order, not of {bits} bits in {LITTLE}"
                raise UsageError(
                    f"{path} has {kind}. Make some: retrieval quantize {path.parent} PHOTOS --bits {bits}."
                )
            self.key += f":{bits}"
            coded = ("projections", bits, UNIT_FLOATS) if floats else ("codes", bits // 8, CODES)
            self._output, self.dim, self.vector_type = coded
        self.reduced = self.metadata.get("retrieval.reduced") == "yes"  # the images that it was taught from
        if self.reduced:  # which needs no more pixels than its input
            self.decode_side = math.ceil(self.side / self.crop)

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        """Squash the middle of the image to `(side, side, 3)` uint8."""
        return square(photo.image, self.side, self.crop, self.reduced)

    def embed(self, batch: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Map n `(side, side, 3)` uint8 arrays to `(n, dim)` float32 unit rows, or to codes."""
        found = self._run(self._output, {"images": np.stack(batch)}, count(len(batch), "image"))
        return unit_rows(found, self.name) if self._output == "projections" else found


def bits_of(key: str) -> int:
    """How many bits the codes of the student with a key have; 0 of one that answers with vectors."""
    return int(key.split(":")[2]) if key.count(":") == 2 else 0


def open_session(path: Path, device: str, threads: int = 0) -> "Opened":
    """Read an ONNX file and make a session of it on a device, as for `choose_provider`.

    As many threads share the work of a call on a CPU: 0 stands for every core, best where one call is
    made at a time, as 1 is where every core makes calls.

    Raises:
        UsageError: No such file, not a model, or the device cannot be had.
    """
    with needs("cpu"):
        import onnxruntime as ort

    if path.is_dir():
        raise UsageError(f"{path} is a folder. Give an ONNX file, such as student/student.onnx.")
    if not path.is_file():
        raise UsageError(f"{path} does not exist. Give the ONNX file of a model.")
    data = path.read_bytes()
    provider = choose_provider(device, ort.get_available_providers(), count_gpus())
    if provider == CUDA:
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from the ones that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    outside = find_external_data(data)
    for name in outside:
        if not (path.parent / name).is_file():
            raise UsageError(f"{path} keeps weights in {name}, which is not beside it. Copy both together.")
    whole = str(path.absolute()) if outside else data
    try:
        session = ort.InferenceSession(whole, options, providers=[provider])
    except Exception as error:  # ONNX Runtime raises its own kinds, none of them exported
        reason = in_line(error, False, 9999)[-300:]  # names of functions come first
        raise UsageError(f"{path} is not an ONNX model that can be run: {reason}") from error
    check_provider(device, provider, session.get_providers())
    return data, session


def find_external_data(data: bytes) -> list[str]:
    """List the files, below the folder of an ONNX file, that hold weights of its."""
    names = set()
    for match in LOCATION.finditer(data):
        low, *high = match[1]
        length = low & 0x7F | (high[0] << 7 if high else 0)
        names.add(data[match.end() : match.end() + length].decode(errors="replace"))
    return sorted(names)


def is_ours(session: "ort.InferenceSession") -> bool:
    """Whether a session runs an ONNX file that this program wrote."""
    return session.get_modelmeta().custom_metadata_map.get("retrieval.format") == FORMAT
