"""Whatever happens on the way, the index in the end is that of a run that nothing disturbed."""

import os
import shutil
import tarfile
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, write_embedder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.build import embed_missing as filling
from index.build.embed import embed_files
from index.build.journal import Journal
from index.build.pipeline import build_index
from index.build.rewrite import compact_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.teacher_space import TeacherSpace
from index.errors import RetrievalError
from index.stores.folder import ERRORS, ITEMS, Index
from index.stores.maintenance import verify_index
from index.stores.options import IndexOptions
from index.stores.records import Space
from index.stores.writing import writer as writing


class Killed(BaseException):
    """In place of a kill: nothing between here and the test handles it."""


class Machine:
    """A student and a teacher that count their work, and a folder of images whose writer can be killed."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.images, self.out = root, root / "images", root / "idx"
        self.steps, self.killed_at, self.embedded, self.time = 0, -1, 0, 1_700_000_000_000_000_000
        self.images.mkdir()
        self.sources = [self.images]
        machine = self

        class Counting(OnnxEmbedder):
            def embed(self, batch):
                machine.embedded += len(batch) if self.dim == 8 else 0
                return super().embed(batch)

        self.student = Counting(write_embedder(root / "student.onnx", dim=8, seed=1), "cpu")
        self.teacher = Counting(write_embedder(root / "teacher.onnx", dim=12, side=64, seed=2), "cpu")
        mean, components = np.zeros(12, np.float32), np.eye(8, 12, dtype=np.float32)
        self.space = TeacherSpace(mean, components)
        monkeypatch.setattr(filling, "embed_files", partial(embed_files, batch=1, workers=1))
        monkeypatch.setattr(Journal, "add", self.stepping(Journal.add))
        monkeypatch.setattr(writing, "build_tuned", self.stepping(writing.build_tuned))
        monkeypatch.setattr(writing, "remove_old", self.stepping(writing.remove_old))
        for module in ("index.io", "index.stores.writing.writer"):  # it takes long
            monkeypatch.setattr(f"{module}.sync", self.stepping(lambda path: None))

    def stepping(self, function):
        def call(*arguments):
            self.step()
            result = function(*arguments)
            self.step()
            return result

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
            return build_index(
                self.sources,
                self.student,
                self.out,
                self.teacher,
                self.space,
                options=IndexOptions(**options),
            )
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
        return build_index(self.sources, self.student, out, self.teacher, self.space)

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
run = st.tuples(st.just("run"), st.integers(-1, 30), st.booleans())


def untimed(index: Index) -> dict[str, Space]:
    """What is known of its spaces, but for how long a search took."""
    return {name: replace(space, milliseconds=0) for name, space in index.manifest.spaces.items()}


def assert_same(one: Index, other: Index) -> None:
    for name in (ITEMS, ERRORS):
        assert (one.data / name).read_bytes() == (other.data / name).read_bytes(), name
    assert untimed(one) == untimed(other)
    assert set(one.manifest.spaces) == {"student", "teacher", "projected"}
    for space in one.manifest.spaces:
        assert one.vectors(space).tobytes() == other.vectors(space).tobytes()
        assert one.vectors(space).shape == (len(one), one.manifest.spaces[space].dim)


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


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path, monkeypatch)
    for i in range(5):
        machine.put(NAMES[i], CONTENTS[i])
    return machine


def test_a_kill_at_any_moment_costs_what_is_at_hand(machine: Machine):
    whole = machine.run()
    steps, expected = machine.steps, machine.undisturbed()
    assert untimed(whole) == untimed(expected)
    for kill_at in range(1, steps + 1, 2):  # after one step is before the next
        shutil.rmtree(machine.out)
        machine.embedded = 0
        assert machine.run(kill_at) is None
        assert_same(machine.go_on(update=False), expected)
        assert machine.embedded <= 5 + 3, f"killed at step {kill_at}"  # two ahead, and the one at hand


@pytest.mark.parametrize("refused", [False, True])  # with a refused file there is more to look through
def test_what_a_kill_after_all_was_done_left_is_removed_by_the_next_run(machine: Machine, refused: bool):
    if refused:
        machine.put("f.png", CONTENTS[5])
    machine.run()
    machine.put("g.png", png(7))
    machine.run(update=True)
    last = machine.steps - 1  # before the old data are removed
    shutil.rmtree(machine.out)
    (machine.images / "g.png").unlink()
    machine.run()
    machine.put("g.png", png(7))
    assert machine.run(last, update=True) is None
    made = Index(machine.out)
    assert sorted(path.name for path in machine.out.glob("data-*")) == ["data-1", "data-2"]
    machine.go_on()
    assert Index(machine.out).manifest == made.manifest
    assert [path.name for path in machine.out.glob("data-*")] == ["data-2"]


def test_an_old_index_is_readable_until_the_new_one_is_complete(machine: Machine):
    machine.run()
    old = Index(machine.out)
    machine.put("f.png", png(7))
    assert machine.run(kill_at=3) is None
    assert Index(machine.out).manifest == old.manifest
    assert old.vectors("student").shape == (5, 8)
    with pytest.raises(RetrievalError, match=r"1 image embedded\. Go on with --resume, or remove"):
        machine.run()
    assert len(machine.run(resume=True)) == 6


def test_an_update_embeds_only_what_is_new_or_changed(machine: Machine):
    machine.run()
    machine.embedded = 0
    (machine.images / "a.png").rename(machine.images / "moved.png")
    (machine.images / "b.png").unlink()
    machine.put("c.png", png(7))  # changed
    machine.touch("d.png")
    machine.put("new.png", png(8))
    machine.put("copy.png", CONTENTS[4])
    assert_same(machine.run(update=True), machine.undisturbed())
    machine.embedded -= 5  # of the undisturbed run: a copy is not embedded
    assert machine.embedded == 2


def test_an_update_with_nothing_changed_leaves_the_index_as_it_is(machine: Machine):
    machine.put("f.png", CONTENTS[5])
    made = machine.run()
    assert [Path(failure.path).name for failure in made.failures] == ["f.png"]
    machine.embedded = 0
    assert machine.run(update=True).manifest == made.manifest
    assert machine.embedded == 0
    assert [path.name for path in made.path.iterdir() if path.is_dir()] == ["data-1"]


def test_a_file_that_became_readable_is_taken_up(machine: Machine):
    machine.put("f.png", CONTENTS[5])
    assert machine.run().manifest.failed == 1
    machine.put("f.png", png(7))
    made = machine.run(update=True)
    assert (len(made), made.manifest.failed) == (6, 0)


def test_copies_are_one_item_of_several_files(machine: Machine):
    machine.put("f.png", CONTENTS[1])
    machine.put("g.png", CONTENTS[1])
    made = machine.run()
    assert machine.embedded == 5
    assert (len(made), made.manifest.copies) == (5, 2)
    assert [file.name for file in made.items[1].files] == ["b.png", "f.png", "g.png"]
    (machine.images / "b.png").unlink()
    made = machine.run(update=True)
    assert machine.embedded == 5
    assert [file.name for file in made.items[-1].files] == ["f.png", "g.png"]
    assert_same(made, machine.undisturbed())


def test_metadata_follow_their_images_through_updates_and_compacting(machine: Machine, tmp_path: Path):
    machine.put("f.png", CONTENTS[1])  # a copy of b
    (tmp_path / "table.csv").write_text("path,n\na.png,first\nf.png,second\nd.png,third\n")
    made = build_index(
        [machine.images], machine.student, machine.out, options=IndexOptions(metadata=tmp_path / "table.csv")
    )
    known = {item.digest: made.metadata_of(i) for i, item in enumerate(made.items)}
    assert [known[made.items[i].digest].get("n") for i in range(5)] == [
        "first",
        "second",
        None,
        "third",
        None,
    ]
    (machine.images / "a.png").rename(machine.images / "moved.png")
    (machine.images / "b.png").unlink()  # its copy takes its place
    for after in (
        build_index([machine.images], machine.student, machine.out, options=IndexOptions(update=True)),
        build_index([machine.images], machine.student, machine.out, options=IndexOptions(update=True)),
    ):
        assert {item.digest: after.metadata_of(i) for i, item in enumerate(after.items)} == known
    assert after.manifest.generation == 2  # the second had nothing to do
    machine.put("b.png", CONTENTS[1])
    build_index([machine.images], machine.student, machine.out, options=IndexOptions(update=True))
    (machine.images / "b.png").unlink()
    compact_index(machine.out)
    after = Index(machine.out)
    assert {item.digest: after.metadata_of(i) for i, item in enumerate(after.items)} == known


def test_an_update_makes_the_projected_space_that_was_not_there(machine: Machine):
    build_index([machine.images], machine.student, machine.out, machine.teacher)
    assert_same(machine.run(update=True), machine.undisturbed())
    assert machine.run(update=True).manifest.generation == 2
    other = TeacherSpace(machine.space.mean, machine.space.components[::-1].copy())
    made = build_index(
        [machine.images],
        machine.student,
        machine.out,
        machine.teacher,
        other,
        options=IndexOptions(update=True),
    )
    assert made.manifest.spaces["projected"].key == other.key


def test_a_run_with_other_models_or_sources_is_refused_by_name(machine: Machine, tmp_path: Path):
    other = OnnxEmbedder(write_embedder(tmp_path / "other.onnx", dim=8, seed=9), "cpu")
    assert machine.run(kill_at=4) is None
    with pytest.raises(RetrievalError, match=r"has another student: student\.onnx .* not other\.onnx"):
        build_index([machine.images], other, machine.out, machine.teacher, options=IndexOptions(resume=True))
    with pytest.raises(RetrievalError, match=r"has another teacher: teacher\.onnx .*, not none"):
        build_index([machine.images], machine.student, machine.out, options=IndexOptions(resume=True))
    with pytest.raises(RetrievalError, match=r"has another source: .*images, not .*a\.png"):
        build_index(
            [machine.images / "a.png"],
            machine.student,
            machine.out,
            machine.teacher,
            options=IndexOptions(resume=True),
        )
    machine.run(resume=True)
    with pytest.raises(RetrievalError, match=r"made with another student: student\.onnx .* not other\.onnx"):
        build_index([machine.images], other, machine.out, machine.teacher, options=IndexOptions(update=True))
    with pytest.raises(RetrievalError, match="was made by student and teacher, not by student"):
        build_index([machine.images], machine.student, machine.out, options=IndexOptions(update=True))
    assert_same(Index(machine.out), machine.undisturbed())


def test_what_is_not_there_is_neither_resumed_nor_updated(machine: Machine):
    with pytest.raises(RetrievalError, match="is not an index"):
        machine.run(update=True)
    assert len(machine.run(resume=True)) == 5  # killed before it began, perhaps
    assert machine.embedded == 5
    made = Index(machine.out).manifest
    assert machine.run(resume=True).manifest == made
    assert machine.run(resume=True, update=True).manifest == made
    assert machine.embedded == 5
    other = OnnxEmbedder(write_embedder(machine.root / "other.onnx", dim=8, seed=9), "cpu")
    assert (
        build_index(
            [machine.images], other, machine.out, options=IndexOptions(resume=True)
        ).manifest.generation
        == 2
    )


def test_members_of_shards_and_odd_names_are_known_again(machine: Machine, tmp_path: Path):
    odd = os.fsdecode(b"odd \xff\n.png")
    machine.put(odd, png(7))
    machine.put("in the shard.png", png(8))
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("in the shard.png", "a.png", odd):
            tar.add(machine.images / name, name)
    (machine.images / "in the shard.png").unlink()
    machine.sources = [machine.images, shard]
    made = machine.run()
    assert (machine.embedded, len(made), made.manifest.copies) == (7, 7, 2)
    assert made.items[0].copies[0].path == str(shard / "a.png")
    machine.embedded = 0
    assert machine.run(update=True).manifest == made.manifest
    shard.rename(tmp_path / "moved.tar")
    machine.sources = [machine.images, tmp_path / "moved.tar"]
    made = machine.run(update=True)
    assert (machine.embedded, len(made)) == (0, 7)
    assert verify_index(made.path) == []
    assert_same(made, machine.undisturbed())
    (tmp_path / "moved.tar").unlink()
    assert compact_index(made.path).files == 3
    assert len(Index(made.path)) == 6


def test_a_damaged_index_is_refused_before_anything_is_embedded(machine: Machine):
    machine.run()
    machine.embedded = 0
    (machine.out / "manifest.json").write_text("{}")
    for options in ({}, {"resume": True}, {"update": True}):
        with pytest.raises(RetrievalError, match="is damaged"):
            machine.run(**options)
    assert machine.embedded == 0
