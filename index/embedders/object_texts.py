"""Texts of a NumPy array of Python objects, as pandas makes them: read, but never unpickled."""

import pickletools
from typing import IO, Any

import numpy as np

PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
NEUTRAL = ("FRAME", "MARK", "APPEND", "APPENDS")  # which change no member of a list


def read_object_texts(file: IO[bytes]) -> list[str]:
    """Read a `.npy` file of n texts, whose opcodes are looked at, none carried out; else ValueError."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of objects in a form that is not read")
    shape, _, _ = np.lib.format.read_array_header_1_0(file)
    memo: dict[Any, str | None] = {}
    texts: list[str | None] | None = None
    last: str | None = None
    for opcode, value, _ in pickletools.genops(file):
        name = opcode.name
        if name == "MEMOIZE" or name in PUTS:
            memo[len(memo) if name == "MEMOIZE" else value] = last
            continue
        is_text = name.endswith("UNICODE")
        last = str(value) if is_text else None
        if texts is None:
            texts = [] if name == "EMPTY_LIST" else None
        elif is_text or name.endswith("GET"):
            texts.append(last if is_text else memo.get(value))
        elif name not in NEUTRAL:
            break
    found = [text for text in texts or () if text is not None]
    if shape != (len(found),):
        raise ValueError(f"{shape[0] if shape else 1} ids as Python objects, of which {len(found)} are texts")
    return found
