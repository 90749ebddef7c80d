import os
import unicodedata

import pyarrow as pa
import pytest
from conftest import known

from index.errors import UsageError
from index.stores.filters import Filter
from index.stores.metadata.columns import MOST_VALUES
from index.stores.metadata.join import carry_over, join_metadata

NAMES = ["a/1.jpg", "a/2.jpg", "b/3.jpg"]


@pytest.fixture
def paths(tmp_path) -> list[str]:
    return [str(tmp_path / "photos" / name) for name in NAMES]


def items(paths):
    return [[(path, name)] for path, name in zip(paths, NAMES, strict=True)]


def written(tmp_path, text, where="table.csv"):
    file = tmp_path / where
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("base", ["photos/", "", "absolute"])
def test_paths_are_relative_to_the_file_or_the_images_or_absolute(tmp_path, paths, base):
    base = f"{tmp_path}/photos/" if base == "absolute" else base
    file = written(tmp_path, f"colour,path\nred,{base}a/1.jpg\nblue,{base}b/3.jpg\ngreen,{base}gone.jpg\n")
    joined = join_metadata(file, items(paths))
    assert (joined.rows_left, joined.items_left) == (1, 1)
    metadata = known(items(paths), joined.table)
    assert metadata.matches("colour", "red").tolist() == [True, False, False]
    assert metadata.matches("colour", "green").tolist() == [False, False, False]
    assert metadata.columns == {"colour": ["blue", "red"]}


def test_a_table_follows_its_items_when_they_move(tmp_path, paths):
    joined = join_metadata(written(tmp_path, "path,n\na/1.jpg,1\na/2.jpg,2\nb/3.jpg,3\n"), items(paths))
    files = items(paths)
    back = known([files[2], [("/new.jpg", "new.jpg")], files[0]], joined.table)
    assert [back.matches("n", n).tolist() for n in "123"] == [
        [False, False, True],
        [False, False, False],
        [True, False, False],
    ]


def test_values_are_text_and_kept_as_written(tmp_path, paths):
    table = join_metadata(
        written(tmp_path, 'path,n\na/1.jpg,007\na/2.jpg,"x, y=z é"\nb/3.jpg,\n'), items(paths)
    )
    metadata = known(items(paths), table.table)
    assert metadata.columns == {"n": ["", "007", "x, y=z é"]}
    assert metadata.matches("n", "7").tolist() == [False] * 3
    assert metadata.matches("n", "").tolist() == [False, False, True]


def test_a_column_with_many_values_shows_the_most_frequent():
    paths = [f"/{i}" for i in range(MOST_VALUES + 50)]
    files = [[(path, path)] for path in paths]
    table = known(files).columns
    assert table == {}
    values = ["often", "often", *map(str, range(len(paths) - 2))]
    shown = known(files, pa.table({"path": paths, "v": values})).columns["v"]
    assert len(shown) == MOST_VALUES
    assert "often" in shown


def test_prefixes_are_of_names():
    metadata = known([[(f"/x/{name}", name)] for name in ("a/1.jpg", "b/2.jpg", "a.jpg")])
    assert metadata.starts_with("a/").tolist() == [True, False, False]
    assert metadata.starts_with("a").tolist() == [True, False, True]
    assert not metadata.starts_with("%").any()


def test_each_copy_keeps_its_row_and_a_filter_looks_at_all(tmp_path):
    files = [
        [("/x/a/1.jpg", "a/1.jpg"), ("/x/b/1.jpg", "b/1.jpg"), ("/x/c/1.jpg", "c/1.jpg")],
        [("/x/b/2.jpg", "b/2.jpg")],
    ]
    text = "path,n,same\nb/1.jpg,first,s\na/1.jpg,second,s\n"
    joined = join_metadata(written(tmp_path, text), files)
    assert (joined.rows_left, joined.items_left) == (0, 1)
    metadata = known(files, joined.table)
    for value in ("first", "second"):
        assert metadata.matches("n", value).tolist() == [True, False]
    assert metadata.columns == {"n": ["first", "second"], "same": ["s"]}
    assert (metadata.of(0), metadata.of(1)) == ({"n": "second; first", "same": "s"}, {})
    assert metadata.starts_with("b/").tolist() == [True, True]
    assert metadata.starts_with("a/").tolist() == [True, False]


@pytest.mark.parametrize(
    "way",
    [
        "./{}".format,
        ".//{}".format,
        "a/../{}".format,
        lambda name: name.replace("/", "\\"),
        lambda name: ".\\" + name.replace("/", "\\"),
        lambda name: unicodedata.normalize("NFD", name),
    ],
)
@pytest.mark.parametrize("base", ["", "photos/", "absolute"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_paths_as_find_windows_macos_and_pandas_write_them(tmp_path, way, base, stored):
    names = ["a/1.jpg", "a/Müller.jpg"]
    root = tmp_path / "photos"
    on_disk = [unicodedata.normalize(stored, name) for name in names]
    files = [[(f"{root}/{name}", name)] for name in on_disk]
    base = f"{root}/" if base == "absolute" else base
    changed = [base + way(name) if base.startswith("/") else way(base + name) for name in names]
    table = written(tmp_path, "path,n\n" + "".join(f"{name},{i}\n" for i, name in enumerate(changed)))
    joined = join_metadata(table, files)
    assert (joined.rows_left, joined.items_left) == (0, 0)
    assert joined.table["path"].to_pylist() == [path for ((path, _),) in files]


def test_a_file_that_is_named_as_it_is_counts_before_others_that_are_written_alike(tmp_path):
    files = [[(f"/x/{name}", name)] for name in ("a/1.jpg", "a\\1.jpg")]
    joined = join_metadata(written(tmp_path, "path,n\na\\1.jpg,back\na/1.jpg,forth\n"), files)
    assert joined.table.to_pydict() == {"path": ["/x/a\\1.jpg", "/x/a/1.jpg"], "n": ["back", "forth"]}
    with pytest.raises(UsageError, match=r"\./a/1\.jpg in .* may be /x/a/1\.jpg or /x/a\\1\.jpg"):
        join_metadata(written(tmp_path, "path,n\n./a/1.jpg,one\n"), files)
    with pytest.raises(UsageError, match=r"two rows for \./a/2\.jpg"):
        join_metadata(
            written(tmp_path, "path,n\na/2.jpg,1\n./a/2.jpg,2\n"), [*files, [("/x/a/2.jpg", "a/2.jpg")]]
        )


def test_a_name_that_two_images_have_is_not_guessed(tmp_path):
    files = [[("/x/1.jpg", "1.jpg"), ("/z/1.jpg", "1.jpg")], [("/y/1.jpg", "1.jpg")], [("/y/2.jpg", "2.jpg")]]
    with pytest.raises(UsageError, match=r"1\.jpg in .* may be /x/1\.jpg or /y/1\.jpg\. Give absolute paths"):
        join_metadata(written(tmp_path, "path,n\n1.jpg,first\n"), files)
    joined = join_metadata(written(tmp_path, "path,n\n/y/1.jpg,a\n/z/1.jpg,b\n2.jpg,c\n"), files)
    assert joined.table.to_pydict() == {"path": ["/y/1.jpg", "/z/1.jpg", "/y/2.jpg"], "n": ["a", "b", "c"]}


def test_metadata_go_with_what_was_moved_and_stay_where_a_path_stays():
    table = pa.table({"n": ["1", "2", "3", "4"], "path": ["/a", "/b", "/c", "/d"]})
    before = pa.table({"path": ["/a", "/b", "/c", "/d"], "digest": ["A", "B", "C", "D"]})
    after = pa.table(
        {"path": ["/b", "/new", "/c"], "digest": ["new", "A", "B"]}
    )  # a is moved, b overwrites c
    assert carry_over(table, before, after).to_pydict() == {
        "n": ["1", "2", "3", "4"],
        "path": ["/new", "/b", "/c", "/d"],
    }
    assert carry_over(table, before, before) == table


def test_rows_of_copies_move_to_copies_that_have_none():
    table = pa.table({"path": ["/a", "/b"], "n": ["1", "2"]})
    before = pa.table({"path": ["/a", "/b"], "digest": ["A", "A"]})
    after = pa.table({"path": ["/b", "/c", "/d"], "digest": ["A", "A", "A"]})
    assert carry_over(table, before, after)["path"].to_pylist() == ["/c", "/b"]
    after = pa.table({"path": ["/c", "/d"], "digest": ["A", "A"]})
    assert carry_over(table, before, after)["path"].to_pylist() == ["/c", "/d"]
    assert carry_over(table, before, after[:1])["path"].to_pylist() == ["/c", "/b"]
    assert carry_over(table, before, after[:0])["path"].to_pylist() == ["/a", "/b"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name,n\na/1.jpg,1\n", "a column `path`"),
        ("", "a column `path`"),
        ("path,n,n\na/1.jpg,1,2\n", "each once"),
        ("path,\na/1.jpg,1\n", "each once"),
        ("path,n\na/1.jpg\n", "row 2, has 1 fields, not 2"),
        ("path,n\na/1.jpg,1\na/1.jpg,2\n", "two rows for a/1.jpg"),
        ("path,n\nz.jpg,1\n", "None of 1 row of"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, paths, text, complaint):
    with pytest.raises(UsageError, match=complaint):
        join_metadata(written(tmp_path, text), items(paths))


def test_columns_that_a_spreadsheet_left_empty_are_left_out(tmp_path, paths):
    joined = join_metadata(written(tmp_path, ",path,,n,\n0,a/1.jpg,,1,\n1,a/2.jpg,,2,\n"), items(paths))
    assert joined.table.column_names == ["path", "n"]


def test_a_file_that_is_no_table_is_refused(tmp_path, paths):
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "wide.csv").write_text("path,n\n", encoding="utf-16-le")
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("b.csv", "wide.csv", "missing.csv", "pipe.csv"):
        with pytest.raises(UsageError, match=f"{name} cannot be read"):
            join_metadata(tmp_path / name, items(paths))


def test_without_metadata_there_is_no_column():
    metadata = known([[("/x/1.jpg", "1.jpg")]])
    with pytest.raises(UsageError, match="no column 'colour', nor any other"):
        Filter(columns={"colour": "red"}).keep(metadata)
