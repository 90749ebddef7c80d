"""Vectors that someone else computed."""

import os
import re
import unicodedata
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import picture, write_embedder

from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.embedders.options import EmbedderOptions
from index.embedders.registry import open_embedder
from index.embedders.vectors_file import write_vectors
from index.errors import ImageError, UsageError
from index.images.decode import read_photo
from index.images.file import ImageFile, digest_pool
from index.images.sources import find_images
from index.io import content_digest


@pytest.fixture(params=[".npz", ".parquet"])
def path(request, tmp_path: Path) -> Path:
    return tmp_path / f"vectors{request.param}"


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)


@pytest.mark.parametrize("by", ["digest", "name"])
def test_an_image_is_found_by_content_or_by_path(folder, path, by):
    photos = [read_photo(file) for file in find_images([folder])]
    write_vectors(path, 5, [([getattr(photo, by) for photo in photos], rows(12))])
    model = open_embedder(path)
    got = model.embed([model.prepare(photo) for photo in photos])
    np.testing.assert_allclose(got, rows(12) / np.linalg.norm(rows(12), axis=1, keepdims=True), atol=1e-6)
    assert model.dim == 5


def test_a_path_counts_only_below_a_folder_of_images(folder, path):
    """Another photo of the same name must not get the vector."""
    write_vectors(path, 5, [(["0.png"], rows(1))])
    model = open_embedder(path)
    model.prepare(read_photo(find_images([folder])[0]))
    with pytest.raises(ImageError, match="no vector in vectors"):
        model.prepare(read_photo(ImageFile(folder / "1.png", "0.png")))


def test_images_that_it_lacks_are_listed(folder, path, tmp_path):
    names = [file.name for file in find_images([folder])]
    vectors = rows(11)
    vectors[3] = 0
    vectors[4] = np.nan
    write_vectors(path, 5, [(names[:11], vectors)])
    student = OnnxEmbedder(write_embedder(tmp_path / "s.onnx"), "cpu")
    with pytest.raises(UsageError, match=r"3 of 12 images without a usable vector .*: 3\.png, .*--allow"):
        build_index([folder], student, tmp_path / "idx", open_embedder(path))
    assert not (tmp_path / "idx").exists()
    partial = open_embedder(path, options=EmbedderOptions(allow_missing=True))
    index = build_index([folder], student, tmp_path / "idx", partial)
    assert len(index) == 9
    reasons = {Path(failure.path).name: failure.reason for failure in index.failures}
    assert reasons.keys() == {Path(names[i]).name for i in (3, 4, 11)}
    assert "no vector in" in reasons[Path(names[11]).name]
    assert "zeros" in reasons[Path(names[3]).name]


def test_a_file_of_other_images_is_refused_unless_some_may_be_missing(folder, path, capsys):
    write_vectors(path, 5, [(["images/0.png"], rows(1))])
    files = find_images([folder])
    with pytest.raises(UsageError, match=r"12 of 12 .*: 0\.png, .* and 9 more\. Paths count from"):
        open_embedder(path).find_missing(files)
    # All that an update looks at may be such.
    missing = open_embedder(path, options=EmbedderOptions(allow_missing=True)).find_missing(files)
    assert len(missing) == 12
    assert "Left out: 12 of 12 images" in capsys.readouterr().err


def test_one_path_in_two_folders_tells_no_image(folder, path, tmp_path):
    """Unless both are copies of one."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "1.png").write_bytes((folder / "1.png").read_bytes())
    write_vectors(path, 5, [([file.name for file in find_images([folder])], rows(12))])
    files = find_images([folder, other])
    assert not open_embedder(path).find_missing(files, digest_pool(files))
    (other / "1.png").write_bytes((folder / "2.png").read_bytes())
    with pytest.raises(UsageError, match=r"one vector for .*images/1\.png and .*other/1\.png"):
        open_embedder(path).find_missing(files, digest_pool(files))


def test_nothing_is_decoded_to_find_what_is_missing(tmp_path, path):
    (tmp_path / "images").mkdir()
    for name in "ab":
        (tmp_path / "images" / f"{name}.png").write_text(name)
    write_vectors(path, 5, [([content_digest(b"a"), "b.png"], rows(2))])
    files = find_images([tmp_path / "images"])
    assert not open_embedder(path).find_missing(files, digest_pool(files))


def test_its_identity_is_its_content(path):
    write_vectors(path, 5, [(["a"], rows(1))])
    key = open_embedder(path).key
    write_vectors(path, 5, [(["b"], rows(1))])
    assert open_embedder(path).key != key


def test_files_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        open_embedder(tmp_path / "none.npz")
    np.savez(tmp_path / "whole.npz", ids=np.array(["a", "b"]), vectors=rows(2))
    np.savez_compressed(tmp_path / "packed.npz", ids=np.array(["a", "b"]), vectors=rows(2))
    whole, packed = ((tmp_path / name).read_bytes() for name in ("whole.npz", "packed.npz"))
    np.save(tmp_path / "one.npy", rows(2))
    damaged = {
        "text": b"text",
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "flipped": whole[:200] + bytes(40) + whole[240:],
        "packed": packed[:60] + bytes(30) + packed[90:],
        "single": (tmp_path / "one.npy").read_bytes(),
    }
    for name, data in damaged.items():
        for ending in ("npz", "parquet"):
            (tmp_path / f"{name}.{ending}").write_bytes(data)
            with pytest.raises(UsageError, match="is damaged, or no file of vectors") as told:
                open_embedder(tmp_path / f"{name}.{ending}")
            assert re.search("cut short|not those that were written", str(told.value)) or ending == "parquet"
            assert str(told.value).endswith(" Write it again, or copy it whole.")
    objects = np.array([None, [1.0]], object)
    np.savez(tmp_path / "objects.npz", ids=np.array(["a", "b"]), vectors=objects)
    with pytest.raises(UsageError, match="Python objects where numbers must be"):
        open_embedder(tmp_path / "objects.npz")
    ragged = pa.table(
        {"ids": ["a", "b"], "vectors": [[1.0, 2.0, 3.0], [4.0]]}
    )  # four numbers, but not two and two
    pq.write_table(ragged, tmp_path / "ragged.parquet")
    with pytest.raises(UsageError, match="no file of vectors"):
        open_embedder(tmp_path / "ragged.parquet")
    np.savez(tmp_path / "names.npz", names=np.array(["a"]))
    with pytest.raises(UsageError, match="no file of vectors, which has `ids`"):
        open_embedder(tmp_path / "names.npz")
    np.savez(tmp_path / "pickle.npz", ids=np.array(["a", None], object), vectors=rows(2))
    with pytest.raises(UsageError, match="no file of vectors"):
        open_embedder(tmp_path / "pickle.npz")
    np.savez(tmp_path / "short.npz", ids=np.array(["a"]), vectors=rows(2))
    with pytest.raises(UsageError, match=r"1 ids for vectors \(2, 5\)"):
        open_embedder(tmp_path / "short.npz")
    np.savez(tmp_path / "twice.npz", ids=np.array(["a", "a"]), vectors=rows(2))
    with pytest.raises(UsageError, match="names an image twice"):
        open_embedder(tmp_path / "twice.npz")


def test_writing_leaves_nothing_half(path, tmp_path):
    def broken():
        yield ["a"], rows(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_vectors(path, 5, broken())
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"must end in \.npz or \.parquet"):
        write_vectors(tmp_path / "v.csv", 5, [])


@pytest.mark.parametrize(
    "ids",
    [
        lambda names: pa.array(names).dictionary_encode(),
        lambda names: pa.array(names, pa.string_view()),
        lambda names: pa.array(names, pa.large_string()),
    ],
    ids=["dictionary", "string_view", "large_string"],
)
@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.list_(pa.float32(), 5), pa.large_list(pa.float64()), pa.list_(pa.float16())],
)
def test_columns_as_others_write_them(folder, tmp_path, ids, kind):
    """One row is null: that image alone has no vector."""
    names = [file.name for file in find_images([folder])]
    values = rows(12).astype(np.float16).tolist()
    values[4] = None
    if kind.value_type == pa.float16():
        values = [value and [np.float16(number) for number in value] for value in values]
    pq.write_table(pa.table({"ids": ids(names), "vectors": pa.array(values, kind)}), tmp_path / "v.parquet")
    model = open_embedder(tmp_path / "v.parquet", options=EmbedderOptions(allow_missing=True))
    assert model.dim == 5
    assert list(model.find_missing(find_images([folder]))) == [4]
    photo = read_photo(find_images([folder])[7])
    wanted = rows(12)[7].astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(model.prepare(photo), wanted)


@pytest.mark.parametrize(
    ("column", "named"),
    [
        (["[1.0]", "[2.0]"], "type string"),
        ([b"\0\0\0\1", b"\0\0\0\2"], "type binary"),
        ([[[1.0]], [[2.0]]], r"type list<.*list"),
        ([[True], [False]], r"type list<.*bool"),
        (pa.array([[], None], pa.list_(pa.float32())), "all empty"),
    ],
)
def test_vectors_that_are_no_lists_of_numbers_are_named_by_their_type(tmp_path, column, named):
    pq.write_table(pa.table({"ids": ["a", "b"], "vectors": column}), tmp_path / "v.parquet")
    with pytest.raises(UsageError, match=named):
        open_embedder(tmp_path / "v.parquet")


def test_numbers_that_would_lose_a_part_are_refused_and_decimals_taken(tmp_path):
    np.savez(tmp_path / "c.npz", ids=["a", "b"], vectors=rows(2).astype(complex))
    with pytest.raises(UsageError, match="type complex128, not numbers"):
        open_embedder(tmp_path / "c.npz")
    pq.write_table(
        pa.table({"ids": ["a"], "vectors": [[Decimal("1.5"), Decimal("2.5")]]}), tmp_path / "d.parquet"
    )
    assert open_embedder(tmp_path / "d.parquet").dim == 2


def test_what_was_found_instead_is_named(tmp_path):
    np.savez(tmp_path / "o.npz", filenames=np.array(["a", "b"]), embeddings=rows(2))
    with pytest.raises(UsageError, match=r"no file of vectors, .*it has filenames, embeddings"):
        open_embedder(tmp_path / "o.npz")
    for some in (["a", None], ["a", b"b"], ["a", 1], [["a"], "b"]):
        array = np.empty(2, object)
        array[:] = some
        np.savez(tmp_path / "o.npz", ids=array, vectors=rows(2))
        with pytest.raises(UsageError, match=r"2 ids as Python objects, of which [01] are texts"):
            open_embedder(tmp_path / "o.npz")
    pq.write_table(pa.table({"id": ["a"], "vectors": [[1.0]]}), tmp_path / "c.parquet")
    with pytest.raises(UsageError, match=r"no file of vectors, .*ids"):
        open_embedder(tmp_path / "c.parquet")
    pq.write_table(pa.table({"ids": ["a", None], "vectors": [[1.0], [2.0]]}), tmp_path / "n.parquet")
    with pytest.raises(UsageError, match="has no id in row 1"):
        open_embedder(tmp_path / "n.parquet")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_ids_that_pandas_kept_as_objects_are_read(tmp_path, save):
    names = ["a.png", "ä.png", "b" * 300, *(f"{i}.png" for i in range(300))]
    save(tmp_path / "o.npz", ids=np.array(names, object), vectors=rows(len(names)))
    model = open_embedder(tmp_path / "o.npz")
    assert list(model._rows) == names
    shared = "".join(["twi", "ce"])
    save(tmp_path / "o.npz", ids=np.array([shared, "x", shared], object), vectors=rows(3))
    with pytest.raises(UsageError, match="names an image twice"):
        open_embedder(tmp_path / "o.npz")


def test_nothing_that_an_array_of_objects_holds_is_carried_out(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    np.savez(tmp_path / "o.npz", ids=np.array(["a", Trap()], object), vectors=rows(2))
    with pytest.raises(UsageError, match="2 ids as Python objects, of which"):
        open_embedder(tmp_path / "o.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "way",
    [
        "./{}".format,
        lambda name: name.replace("/", "\\"),
        lambda name: unicodedata.normalize("NFD", name),
        lambda name: unicodedata.normalize("NFC", name),
        "{root}/{}".format,
    ],
)
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_paths_as_others_write_them(folder, path, way, stored):
    (folder / "0.png").rename(folder / "more" / unicodedata.normalize(stored, "Müller.png"))
    files = find_images([folder])
    changed = [way(file.name, root=folder) if way.__name__ == "format" else way(file.name) for file in files]
    write_vectors(path, 5, [(changed, rows(12))])
    model = open_embedder(path)
    assert not model.find_missing(files)
    got = np.stack([model.prepare(read_photo(file)) for file in files])
    np.testing.assert_array_equal(got, rows(12))


def test_what_two_rows_may_mean_is_not_guessed(folder, path):
    write_vectors(path, 5, [(["./0.png", ".//0.png", "1.png", "./1.png"], rows(4))])
    model = open_embedder(path, options=EmbedderOptions(allow_missing=True))
    files = [file for file in find_images([folder]) if file.name in ("0.png", "1.png")]
    assert list(model.find_missing(files)) == [0]
    np.testing.assert_array_equal(model.prepare(read_photo(files[1])), rows(4)[2])


def test_an_absolute_path_is_told_from_that_of_another_folder(tmp_path, path):
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        picture(i).save(tmp_path / name / "0.png")
    write_vectors(path, 5, [([str(tmp_path / name / "0.png") for name in "ab"], rows(2))])
    model, files = open_embedder(path), find_images([tmp_path / "a", tmp_path / "b"])
    assert not model.find_missing(files)
    np.testing.assert_array_equal(np.stack([model.prepare(read_photo(file)) for file in files]), rows(2))


def test_numbers_of_sixteen_bits_and_tensors(tmp_path):
    halves = rows(2).view(np.uint32) >> 16
    np.savez(tmp_path / "b.npz", ids=["a", "b"], vectors=halves.astype(np.uint16).view("V2"))
    np.testing.assert_array_equal(open_embedder(tmp_path / "b.npz")._vectors, (halves << 16).view(np.float32))
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(rows(2))
    pq.write_table(pa.table({"ids": ["a", "b"], "vectors": tensors}), tmp_path / "t.parquet")
    np.testing.assert_array_equal(open_embedder(tmp_path / "t.parquet")._vectors, rows(2))


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [(pa.list_(pa.float32()), []), (pa.large_list(pa.float16()), []), (pa.list_(pa.float64(), 5), None)],
    ids=str,
)
def test_an_image_with_an_empty_vector_has_none(folder, tmp_path, kind, lacking):
    files = find_images([folder])
    vectors = [*rows(12)[:11].astype(np.float16), lacking]
    table = pa.table({"ids": [file.name for file in files], "vectors": pa.array(vectors, kind)})
    pq.write_table(table, tmp_path / "v.parquet")
    model = open_embedder(tmp_path / "v.parquet", options=EmbedderOptions(allow_missing=True))
    assert model.find_missing(files) == {11: "no vector in v.parquet"}
    assert model.dim == 5


def test_why_a_vector_is_of_no_use_is_said(folder, path, recwarn):
    huge = rows(12).astype(np.float64)
    huge[3:5] = 1e300
    np.savez(path.with_suffix(".npz"), ids=[file.name for file in find_images([folder])], vectors=huge)
    with pytest.raises(
        UsageError, match=r"2 of 12 .* \(vectors\.npz answered with a vector that is not finite"
    ):
        open_embedder(path.with_suffix(".npz")).find_missing(find_images([folder]))
    assert not recwarn


def test_ids_in_a_column_of_their_own_are_one_line(tmp_path):
    np.savez(tmp_path / "column.npz", ids=np.array([["a"], ["b"]]), vectors=rows(2))
    with pytest.raises(UsageError, match="no id in row 0; it needs `ids` of n texts"):
        open_embedder(tmp_path / "column.npz")


def test_a_file_whose_name_is_not_utf8_is_named_all_the_same(folder, tmp_path, student_file):
    path = tmp_path / os.fsdecode(b"\xff.npz")
    write_vectors(path, 5, [([file.name for file in find_images([folder])][:11], rows(11))])
    partial = open_embedder(path, options=EmbedderOptions(allow_missing=True))
    (failure,) = build_index([folder], OnnxEmbedder(student_file, "cpu"), tmp_path / "i", partial).failures
    assert failure.reason == r"no vector in \xff.npz"
