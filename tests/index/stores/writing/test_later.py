"""Updates that write a second part: searched, filtered and looked up, both are one index."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import png, write_embedder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.build.journal import Journal
from index.build.pipeline import build_index
from index.build.rewrite import compact_index, replace_student
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.embedders.vectors_file import write_vectors
from index.errors import RetrievalError, UsageError
from index.io import content_digest
from index.search import Searcher
from index.stores.filters import Filter
from index.stores.folder import FORMAT, GONE, LATER, PARTED, Index
from index.stores.maintenance import describe_index, verify_index
from index.stores.options import IndexOptions
from index.stores.writing import later, writer

FIRST = 24  # images of the first part


class Killed(BaseException):
    """In place of a kill: nothing between here and the test handles it."""


class Gallery:
    """A folder of images and an index of it; of each image there is a row of metadata."""

    def __init__(self, root: Path) -> None:
        self.images, self.out, self.root = root / "images", root / "idx", root
        self.images.mkdir(parents=True)
        self.student = OnnxEmbedder(write_embedder(root / "student.onnx"), "cpu")
        self.time = 1_700_000_000_000_000_000
        for i in range(FIRST):
            self.put(f"{i:02}", i)
        rows = [f"{i:02}.png,{'red' if i % 3 else 'blue'},{i}\n" for i in range(FIRST + 8)]
        self.table = self.images / "table.csv"
        self.table.write_text("path,colour,n\n" + "".join(rows))
        for out in (self.out, self.root / "whole"):
            self.build(out, metadata=self.table)

    def put(self, name: str, seed: int) -> None:
        self.time += 10
        (self.images / f"{name}.png").write_bytes(png(seed))
        os.utime(self.images / f"{name}.png", ns=(self.time, self.time))

    def build(self, out: Path | None = None, **options) -> Index:
        return build_index([self.images], self.student, out or self.out, options=IndexOptions(**options))

    def update(self) -> Index:
        return self.build(update=True)

    def whole(self) -> Index:
        """The same in one part, updated as a small index is."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(later, "LARGE", 1000)
            return self.build(self.root / "whole", update=True)


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    monkeypatch.setattr(later, "LARGE", FIRST // 2)
    monkeypatch.setattr(later, "MOST_LATER", 0.5)
    monkeypatch.setattr(later, "MOST_GONE", 0.5)
    return Gallery(tmp_path)


def looked_through(index: Index) -> list:
    """All that can be asked of an index, with names in the place of ids."""
    searcher = Searcher(index, OnnxEmbedder(index.model_file, "cpu"))
    names = [item.name for item in index.items]
    known = {item.name: (item, index.metadata_of(i)) for i, item in enumerate(index.items)}
    assert len(names) == len(index)
    for i, item in enumerate(index.items):
        assert index.items[i] == item
        assert index.ids_by_digest[item.digest] == [i]
    assert list(index.ids_by_digest) == [item.digest for item in index.items]
    rows = index.rows("student")
    np.testing.assert_array_equal(np.concatenate(list(index.iter_rows("student"))), rows)
    np.testing.assert_array_equal(index.read_rows("student", np.arange(len(index))[::-1]), rows[::-1])
    by_name = sorted(range(len(names)), key=names.__getitem__)
    answers = []
    for filter in (
        Filter(),
        Filter("1"),
        Filter(columns={"colour": "red"}),
        Filter(columns={"n": ">=5&<20"}),
    ):
        try:
            found = searcher.search(rows[by_name], "student", 7, filter=filter)
        except UsageError as error:
            answers.append(str(error))
            continue
        for row in range(len(names)):
            hits = sorted((-round(score, 5), names[i]) for i, score in found.hits(row))
            answers.append(hits)
    return [known, index.columns, rows[by_name].tolist(), [vars(f) for f in index.failures], answers]


def assert_same(made: Index, whole: Index) -> None:
    assert looked_through(made) == looked_through(whole)
    assert (len(made), made.manifest.copies) == (len(whole), whole.manifest.copies)


def inodes(index: Index) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in index.data.iterdir()}


def test_an_update_of_a_large_index_writes_what_is_new(gallery: Gallery):
    before = inodes(Index(gallery.out))
    gallery.put("new", 100)
    gallery.put("07", 101)  # changed
    (gallery.images / "03.png").unlink()
    shutil.copy(gallery.images / "05.png", gallery.images / "copy.png")
    made = gallery.update()
    assert made.manifest.format == PARTED
    assert np.load(made.data / GONE).tolist() == [3, 5, 7]
    for name in ("items.arrow", "digests.npy", "student.npy", "metadata.arrow"):
        assert inodes(made)[name] == before[name]
        assert inodes(made)[LATER + name] not in before.values()
    assert [item.name for item in made.items][-3:] == ["05.png", "07.png", "new.png"]
    assert [file.name for file in made.items[len(made) - 3].files] == ["05.png", "copy.png"]
    assert verify_index(made.path) == []
    assert describe_index(made.path).images == FIRST
    assert gallery.update().manifest == made.manifest  # nothing to do


def test_metadata_given_again_with_new_photos_write_what_is_new_of_them(gallery: Gallery, caplog):
    caplog.set_level("INFO", "retrieval")
    before = inodes(Index(gallery.out))
    gallery.put(f"{FIRST}", 100)
    gallery.put("more", 101)
    shutil.copy(gallery.images / "more.png", gallery.images / "same.png")
    (gallery.images / "03.png").unlink()
    text = gallery.table.read_text() + f"{FIRST + 8}.png,green,7\n"
    gallery.table.write_text(text)
    made = gallery.build(update=True, metadata=gallery.table)
    for name in ("items.arrow", "digests.npy", "student.npy", "metadata.arrow"):
        assert inodes(made)[name] == before[name]
    assert f"{gallery.table}: 9 rows without an image, 1 image without a row." in caplog.messages
    (item,) = made.ids_by_digest[content_digest((gallery.images / f"{FIRST}.png").read_bytes())]
    assert made.metadata_of(item) == {"colour": "red" if FIRST % 3 else "blue", "n": str(FIRST)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(later, "LARGE", 1000)
        whole = gallery.build(gallery.root / "whole", update=True, metadata=gallery.table)
    assert_same(made, whole)
    caplog.clear()
    generation = made.manifest.generation
    again = gallery.build(update=True, metadata=gallery.table)
    assert again.manifest.generation == generation, "nothing is new"
    assert f"{gallery.table}: 9 rows without an image, 1 image without a row." in caplog.messages
    gallery.table.write_text(
        "n,path,colour\n"
        + "".join(  # in another order the same
            f"{n},{path},{colour}\n" for path, colour, n in (row.split(",") for row in text.split()[1:])
        )
    )
    gallery.put(f"{FIRST + 1}", 102)
    made = gallery.build(update=True, metadata=gallery.table)
    assert inodes(made)["metadata.arrow"] == before["metadata.arrow"]
    assert verify_index(made.path) == []
    gallery.table.write_text(text.replace("05.png,red", "05.png,white"))
    gallery.put(f"{FIRST + 2}", 103)
    made = gallery.build(update=True, metadata=gallery.table)  # says another thing of what is known
    assert made.manifest.format == FORMAT
    assert [made.metadata_of(i)["colour"] for i, item in enumerate(made.items) if item.name == "05.png"] == [
        "white"
    ]


def test_what_is_gone_is_not_found(gallery: Gallery):
    (gallery.images / "03.png").unlink()
    (gallery.images / "07.png").unlink()
    made = gallery.update()
    assert np.load(made.data / GONE).tolist() == [3, 7]
    assert verify_index(made.path) == []
    assert_same(made, gallery.whole())
    gallery.put("03", 3)  # back, with what is known of it
    made = gallery.update()
    assert made.metadata_of(len(made) - 1) == {"colour": "blue", "n": "3"}
    assert_same(made, gallery.whole())


names = st.sampled_from(["00", "05", "11", "23", *(f"{i}" for i in range(FIRST, FIRST + 8)), "more"])
change = st.one_of(
    st.tuples(st.just("put"), names, st.integers(0, 60)),
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("touch"), names),
    st.tuples(st.just("move"), names, names),
    st.tuples(st.just("update")),
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(change, max_size=14))
def test_any_updates_end_in_what_one_run_writes(tmp_path_factory, history):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(later, "LARGE", FIRST // 2)
        patched.setattr(later, "MOST_LATER", 0.5)
        patched.setattr(later, "MOST_GONE", 0.5)
        gallery = Gallery(tmp_path_factory.mktemp("gallery"))
        for what, *rest in [*history, ("update",)]:
            file = gallery.images / f"{rest[0] if rest else ''}.png"
            if what == "put":
                gallery.put(*rest)
            elif what == "remove":
                file.unlink(missing_ok=True)
            elif what == "move" and file.exists():
                file.replace(gallery.images / f"{rest[1]}.png")
            elif what == "touch" and file.exists():
                gallery.time += 10
                os.utime(file, ns=(gallery.time, gallery.time))
            elif what == "update":
                made = gallery.update()
                gallery.whole()
        assert verify_index(made.path) == []
        assert_same(made, gallery.whole())
        compact_index(made.path)
        assert Index(made.path).manifest.format == FORMAT
        assert_same(Index(made.path), gallery.whole())


def test_many_changes_are_written_as_a_whole(gallery: Gallery):
    for i in range(FIRST // 2 + 1):
        gallery.put(f"more {i}", 100 + i)
    assert gallery.update().manifest.format == FORMAT
    for i in range(3):
        gallery.put(f"again {i}", 200 + i)
    assert gallery.update().manifest.format == PARTED
    compact_index(gallery.out)
    assert_same(Index(gallery.out), gallery.whole())


@pytest.mark.parametrize("parted", [False, True])
@pytest.mark.slow
def test_a_kill_at_any_write_leaves_the_old_index_or_the_new(gallery: Gallery, monkeypatch, parted: bool):
    if parted:
        gallery.put("earlier", 99)
        gallery.update()
    old = gallery.out.rename(gallery.root / "old")
    known = looked_through(Index(old))
    gallery.put("new", 100)
    (gallery.images / "03.png").unlink()
    steps, limit = 0, -1

    def stepping(function):
        def call(*arguments, **options):
            nonlocal steps
            result = function(*arguments, **options)
            steps += 1
            if steps == limit:
                raise Killed
            return result

        return call

    for module, name in (
        (os, "link"),
        (np, "save"),
        (Path, "replace"),
        (Path, "mkdir"),
        (Path, "write_bytes"),
    ):
        monkeypatch.setattr(module, name, stepping(getattr(module, name)))
    for name in ("sync", "write_rows", "write_failures", "remove_old", "file_digest"):
        monkeypatch.setattr(writer, name, stepping(getattr(writer, name)))
    monkeypatch.setattr(writer.IndexWriter, "__exit__", lambda *_: None)  # a kill cleans nothing up
    shutil.copytree(old, gallery.out)
    expected = looked_through(gallery.update())
    count, outcomes = steps, []
    for step in range(1, count + 1):
        shutil.rmtree(gallery.out)
        shutil.copytree(old, gallery.out)
        steps, limit = 0, step
        with pytest.raises(Killed):
            gallery.update()
        outcomes.append(looked_through(Index(gallery.out)))
        assert outcomes[-1] in (known, expected)
        limit = -1
        assert looked_through(gallery.build(resume=True, update=True)) == expected
        assert len(list(gallery.out.glob("data-*"))) == 1
    assert outcomes[0] == known
    assert outcomes[-1] == expected
    assert count > 15


def test_a_disk_that_fills_up_leaves_the_old_index(gallery: Gallery, monkeypatch):
    known = looked_through(Index(gallery.out))
    gallery.put("new", 100)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(writer, "write_rows", full)
        with pytest.raises(
            RetrievalError, match=r"The disk of .* is full\. Free some space, then go on with"
        ):
            gallery.update()
    assert looked_through(Index(gallery.out)) == known
    assert [file.name for file in gallery.out.glob("data-*")] == ["data-1"]
    monkeypatch.setattr(OnnxEmbedder, "embed", lambda *_: pytest.fail("embedded again"))
    made = gallery.build(resume=True)
    monkeypatch.undo()
    assert (made.manifest.format, len(made)) == (PARTED, FIRST + 1)


def test_a_disk_without_links_takes_copies(gallery: Gallery, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    gallery.put("new", 100)
    made = gallery.update()
    assert made.manifest.format == PARTED
    assert verify_index(made.path) == []
    assert_same(made, gallery.whole())


def parted(gallery: Gallery) -> Index:
    gallery.put("new", 100)
    (gallery.images / "03.png").unlink()
    return gallery.update()


@pytest.mark.parametrize("name", [LATER + "items.arrow", LATER + "student.npy", LATER + "digests.npy", GONE])
def test_a_part_that_is_missing_or_cut_short_is_named(gallery: Gallery, name: str):
    made = parted(gallery)
    whole = (made.data / name).read_bytes()
    for data, what in ((whole[:-8], "is damaged"), (None, "is missing")):
        (made.data / name).unlink()
        if data is not None:
            (made.data / name).write_bytes(data)
        with pytest.raises(UsageError, match=rf"{name} {what}.* Index the images again"):
            looked_through(Index(made.path))
        with pytest.raises(UsageError, match=name):
            gallery.update()
        assert name in verify_index(made.path)[0]


def test_a_part_that_changed_on_the_disk_is_not_written_again(gallery: Gallery):
    made = parted(gallery)
    file = made.data / f"{LATER}student.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    gallery.put("newer", 101)
    with pytest.raises(UsageError, match=rf"{file.name} is not as it was written"):
        gallery.update()


def test_what_is_gone_must_lie_in_the_first_part(gallery: Gallery):
    made = parted(gallery)
    for wrong in ([FIRST], [-1]):
        np.save(made.data / GONE, np.array(wrong))
        with pytest.raises(UsageError, match=rf"{GONE} is damaged"):
            _ = Index(made.path).items
    with pytest.raises(UsageError, match=rf"{GONE} is not as it was written"):
        compact_index(made.path)


def test_a_part_of_another_generation_is_found(gallery: Gallery):
    made = parted(gallery)
    shutil.copy(made.data / f"{LATER}student.npy", gallery.root / "old.npy")
    gallery.put("new", 101)
    made = gallery.update()
    shutil.copy(gallery.root / "old.npy", made.data / f"{LATER}student.npy")
    assert verify_index(made.path) == [f"{made.data / LATER}student.npy is not as it was written"]


def test_a_later_student_searches_both_parts(gallery: Gallery):
    made = parted(gallery)
    made.pin()
    other = OnnxEmbedder(write_embedder(gallery.root / "later.onnx", seed=5), "cpu")
    upgraded = replace_student(made.path, other)
    assert (upgraded.manifest.format, upgraded.manifest.spaces["student"].queries) == (PARTED, other.key)
    assert [item.name for item in upgraded.items] == [item.name for item in made.items]
    np.testing.assert_array_equal(upgraded.rows("student"), made.rows("student"))
    assert verify_index(made.path) == []


def test_a_second_writer_waits(gallery: Gallery):
    gallery.put("new", 100)
    with Journal(gallery.out), pytest.raises(RetrievalError, match="another process writes it"):
        gallery.update()


def test_an_approximate_index_is_searched_beside_its_second_part(gallery: Gallery):
    index = gallery.build(gallery.root / "ivf", factory="IVF2,Flat", metadata=gallery.table)
    gallery.put("new", 100)
    (gallery.images / "03.png").unlink()
    made = gallery.build(index.path, factory="IVF2,Flat", update=True)
    assert inodes(made)["student.faiss"] == inodes(Index(made.path))["student.faiss"]
    assert made.manifest.spaces == index.manifest.spaces
    assert verify_index(made.path) == []
    assert_same(made, gallery.whole())


def test_what_a_file_of_vectors_lacks_of_the_new_is_refused_alone(gallery: Gallery):
    file = gallery.root / "vectors.npz"
    names = [f"{i:02}.png" for i in range(FIRST)]
    write_vectors(file, 8, [(names, np.eye(FIRST, 8, dtype=np.float32) + 1)])
    teacher = open_embedder(file, options=EmbedderOptions(allow_missing=True))
    out = gallery.root / "taught"
    build_index([gallery.images], gallery.student, out, teacher)
    gallery.put("new", 99)
    made = build_index([gallery.images], gallery.student, out, teacher, options=IndexOptions(update=True))
    assert (len(made), [Path(failure.path).name for failure in made.failures]) == (FIRST, ["new.png"])
