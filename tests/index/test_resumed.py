"""Whatever happens on the way, the index in the end is that of a run that nothing disturbed."""

import os
import shutil
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, write_embedder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import filling, pipeline, writing
from index.embedder import OnnxEmbedder
from index.embedding import embed_files
from index.errors import RetrievalError
from index.pipeline import build_index
from index.store import ERRORS, ITEMS, Index
from index.teacher_space import TeacherSpace


class Killed(BaseException):
    """In place of a kill: nothing between here and the test handles it."""


class Machine:
    """A student and a teacher that count their work, and a folder of images whose writer can be killed."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.images, self.out = root, root / "images", root / "idx"
        self.steps, self.killed_at, self.embedded, self.time = 0, -1, 0, 1_700_000_000_000_000_000
        self.images.mkdir()
        machine = self

        class Counting(OnnxEmbedder):
            def embed(self, batch):
                machine.step()
                machine.embedded += len(batch) if self.dim == 8 else 0
                return super().embed(batch)

        self.student = Counting(write_embedder(root / "student.onnx", dim=8, seed=1), "cpu")
        self.teacher = Counting(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2), "cpu")
        mean, components = np.zeros(12, np.float32), np.eye(8, 12, dtype=np.float32)
        self.space = TeacherSpace(mean, components)
        monkeypatch.setattr(filling, "embed_files", partial(embed_files, batch=2))
        monkeypatch.setattr(pipeline, "build_ann", self.stepping(pipeline.build_ann))
        monkeypatch.setattr(writing, "remove_old", self.stepping(writing.remove_old))
        monkeypatch.setattr(writing, "sync", self.stepping(lambda path: None))  # it takes long

    def stepping(self, function):
        def call(*arguments):
            self.step()
            return function(*arguments)

        return call

    def step(self) -> None:
        """One of the moments at which the process may be killed: then keep the folder as it is now."""
        self.steps += 1
        if self.steps == self.killed_at:
            shutil.copytree(self.out, self.root / "left")
            raise Killed

    def run(self, kill_at: int = -1, **options: bool) -> Index | None:
        """Index the images; None if the process was killed at that step."""
        self.steps, self.killed_at = 0, kill_at
        try:
            return build_index([self.images], self.student, self.out, self.teacher, self.space, **options)
        except Killed:
            shutil.rmtree(self.out, ignore_errors=True)
            (self.root / "left").rename(self.out)
            return None

    def go_on(self, kill_at: int = -1, update: bool = True) -> Index | None:
        """As a user would: resume if there is something to resume, update if there is an index."""
        try:
            return self.run(kill_at, update=update and (self.out / "manifest.json").exists())
        except RetrievalError as error:
            if "--resume" not in str(error):
                raise
            return self.run(kill_at, resume=True)

    def undisturbed(self) -> Index:
        out = self.root / "fresh"
        shutil.rmtree(out, ignore_errors=True)
        self.killed_at = -1
        return build_index([self.images], self.student, out, self.teacher, self.space)

    def put(self, name: str, data: bytes) -> None:
        (self.images / name).write_bytes(data)
        self.touch(name)

    def touch(self, name: str) -> None:
        self.time += 10  # nanoseconds; the clock of a file system may stand for longer
        if (self.images / name).exists():
            os.utime(self.images / name, ns=(self.time, self.time))


def png(seed: int) -> bytes:
    file = BytesIO()
    picture(seed, 8, 8).save(file, "PNG")
    return file.getvalue()


CONTENTS = [*map(png, range(5)), b"no image"]
NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "g.png"]
names = st.sampled_from(NAMES)
put = st.tuples(st.just("put"), names, st.integers(0, len(CONTENTS) - 1))
change = st.one_of(
    put,
    put,
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("move"), names, names),
    st.tuples(st.just("touch"), names),
)
run = st.tuples(st.just("run"), st.integers(-1, 14), st.booleans())


def assert_same(one: Index, other: Index) -> None:
    for name in (ITEMS, ERRORS):
        assert (one.data / name).read_bytes() == (other.data / name).read_bytes(), name
    assert one.manifest.spaces == other.manifest.spaces
    assert set(one.manifest.spaces) == {"student", "teacher", "projected"}
    for space in one.manifest.spaces:
        assert one.vectors(space).tobytes() == other.vectors(space).tobytes()
        assert one.ann(space).ntotal == len(one)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(put, min_size=3, max_size=8), st.lists(st.one_of(change, run, run), max_size=12))
def test_any_history_ends_in_the_index_of_a_fresh_run(tmp_path_factory, start, history):
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = Machine(tmp_path_factory.mktemp("machine"), monkeypatch)
        machine.put("always.png", png(9))
        for what, *rest in [*start, *history]:
            if what == "put":
                machine.put(rest[0], CONTENTS[rest[1]])
            elif what == "touch":
                machine.touch(rest[0])
            elif what == "remove":
                (machine.images / rest[0]).unlink(missing_ok=True)
            elif what == "move" and (machine.images / rest[0]).exists():
                (machine.images / rest[0]).replace(machine.images / rest[1])
            elif what == "run":
                machine.go_on(*rest)
        final = machine.go_on()
        assert final is not None
        assert_same(final, machine.undisturbed())
        assert sorted(path.name for path in machine.out.iterdir()) == [final.data.name, "manifest.json"]
        shutil.rmtree(machine.root)
