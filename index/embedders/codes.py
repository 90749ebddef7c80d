"""Students of bits: the packed codes that an ONNX file of ours has beside its float vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embedders.base import unit_rows
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.io import content_digest
from index.vectors import CODES, UNIT_FLOATS

BITS, ORDER = "retrieval.bits", "retrieval.bit_order"  # of the codes, in the metadata of the file
LITTLE = "little"  # bit i of a code is bit i % 8 of its byte i // 8, as NumPy calls it and FAISS has it


class CodeEmbedder(OnnxEmbedder):
    """Maps images to `(n, bits / 8)` uint8 codes, or to the floats whose signs they are, as unit rows."""

    def __init__(
        self, path: Path, bits: int, device: str = "auto", threads: int = 0, floats: bool = False
    ) -> None:
        """Open the file, whose answers have one key; UsageError if it has no such codes in that order."""
        super().__init__(path, device, threads)
        has, order = self.metadata.get(BITS), self.metadata.get(ORDER)
        if (has, order) != (str(bits), LITTLE):
            kind = f"codes of {has} bits in {order} bit order, not of {bits} bits in {LITTLE}"
            if not has or order == LITTLE:
                kind = f"codes of {has} bits, not of {bits}" if has else "no codes"
            raise UsageError(
                f"{path} has {kind}. Make some: retrieval quantize {path.parent} PHOTOS --bits {bits}."
            )
        self.key = f"onnx:{content_digest(self.data)}:{bits}"
        self._floats = floats
        self.dim, self.vector_type = (bits, UNIT_FLOATS) if floats else (bits // 8, CODES)

    def embed(self, batch: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Map n `(side, side, 3)` uint8 arrays to codes, or to floats."""
        output = "projections" if self._floats else "codes"
        found = self.session.run([output], {"images": np.stack(batch)})[0]
        return unit_rows(found, self.name) if self._floats else found


def bits_of(key: str) -> int:
    """How many bits the codes of the student with a key have; 0 of one that answers with vectors."""
    return int(key.split(":")[2]) if key.count(":") == 2 else 0


def open_student(
    path: Path, device: str = "auto", threads: int = 0, bits: int = 0, floats: bool = False
) -> OnnxEmbedder:
    """Open a student for its vectors, or for codes of so many bits, as `CodeEmbedder`."""
    return CodeEmbedder(path, bits, device, threads, floats) if bits else OnnxEmbedder(path, device, threads)
