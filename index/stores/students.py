"""Students that galleries elsewhere were made with, kept on this machine by their digest."""

import re
from pathlib import Path

from platformdirs import user_data_path

from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.io import atomic_write
from index.stores.folder import COMPANIONS, STUDENT


def keep_student(student: OnnxEmbedder) -> Path:
    """Keep a student's file, and what lies beside it, in the user's data folder."""
    folder = _folder(student.key)
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    beside = {name: Path(student.spec).with_name(name) for name in COMPANIONS}
    files = {name: file.read_bytes() for name, file in beside.items() if file.is_file()}
    for name, data in {**files, STUDENT: student.data}.items():
        with atomic_write(folder / name) as written:  # the file may be where the data are from
            written.write_bytes(data)
    return folder / STUDENT


def find_student(key: str, where: object) -> Path:
    """Find the file of a student that was kept, by its key; `where` is what it made, for people."""
    folder = _folder(key)
    if folder is None or not (folder / STUDENT).is_file():
        raise UsageError(f"The student that made {where} is not on this machine. Give its file with --model.")
    return folder / STUDENT


def _folder(key: str) -> Path | None:
    """Where it is kept; the key may come from elsewhere, and must not name another place."""
    digest = re.fullmatch(r"onnx:([0-9a-f]{32})(?::\d+)?", key)  # of one that answers with codes, their bits
    return user_data_path("retrieval") / "students" / digest[1] if digest else None
