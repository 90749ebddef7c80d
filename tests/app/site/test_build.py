"""What `retrieval site` writes, without a browser."""

import gzip
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from typer.testing import CliRunner

from app.cli import app
from app.site import lists, runtime
from app.site.build import SiteOptions, build_site_by_name
from app.site.gallery import LEVELS, PART, divide, pack_rows
from app.site.scripts import read_styles
from index.build.pipeline import build_index
from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.search import open_searcher
from index.stores.options import IndexOptions


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A runtime of one's own; nothing runs it here."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    (folder / runtime.MODULE).write_bytes(b"export {};")
    (folder / runtime.WASM).write_bytes(b"\0asm")
    return folder


def unpack(out: Path, name: str) -> bytes:
    return gzip.decompress((out / name).read_bytes())


def unpack_rows(data: bytes, count: int, levels: int = LEVELS) -> np.ndarray:
    """What `lists.js` and `gallery.js` make of rows."""
    low, high = np.frombuffer(data, np.uint8).reshape(2, -1)
    folded = low.astype(np.int32) | high.astype(np.int32) << 8
    return np.where(folded % 2, -(folded + 1) // 2, folded // 2).reshape(-1, count).T / levels


def manifest_of(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


def files_of(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}


def test_a_site_has_the_rows_and_facts_of_its_index_and_no_path_of_this_machine(page_root, own, tmp_path):
    out = tmp_path / "site"
    said = build_site_by_name(page_root / "idx", out, SiteOptions(title="Shop", runtime=own))
    assert "30 photos" in said
    manifest = manifest_of(out)
    searcher = open_searcher(page_root / "idx", with_teacher=False)
    index, (shard,) = searcher.index, manifest["shards"]
    facts = json.loads(unpack(out, shard["facts"]))
    places = [index.ids_by_digest[digest][0] for digest in facts["digests"]]
    assert sorted(places) == list(range(30))
    assert facts["names"] == [index.items[i].name for i in places]
    assert facts["columns"]["shop"] == [index.metadata_of(i)["shop"] for i in places]
    rows = unpack_rows(unpack(out, shard["rows"]), 30)
    assert np.abs(rows - index.rows("student", np.array(places))).max() <= 0.5001 / LEVELS
    ranked = np.frombuffer(unpack(out, manifest["files"]["teacher"]), "<i4").reshape(30, 10)
    wanted = searcher.search_items([places[4]], "teacher", 10).ids[0]
    assert [places[i] for i in ranked[4]] == wanted.tolist()
    for name, data in files_of(out).items():
        assert str(page_root).encode() not in (gzip.decompress(data) if name.endswith(".bin") else data), name


def read_lists(out: Path) -> list[dict]:
    """The lists of a site: `rough` rows, `rows` and `digests`."""
    known, found = manifest_of(out)["lists"], []
    for count, name in json.loads(unpack(out, known["table"])):
        folded = np.frombuffer(unpack(out, f"{name}-0.bin"), np.uint8).reshape(-1, count + 1).T.astype(int)
        rough = np.where(folded % 2, -(folded + 1) // 2, folded // 2) / known["rough"]
        rows, digests, dim = [], [], rough.shape[1]
        for i, start in enumerate(range(0, count, known["part"]), start=1):
            size = min(known["part"], count - start)
            data = unpack(out, f"{name}-{i}.bin")
            rows.append(unpack_rows(data[: 2 * size * dim], size, lists.LEVELS))
            digests += json.loads(data[2 * size * dim :])["digests"]
        found.append({"name": name, "rough": rough[1:] + rough[0], "rows": rows, "digests": digests})
    return found


def test_a_large_gallery_is_written_in_lists_of_near_photos(page_root, own, tmp_path, small_lists):
    out = tmp_path / "site"
    build_site_by_name(page_root / "idx", out, SiteOptions(runtime=own))
    manifest, index = manifest_of(out), open_searcher(page_root / "idx", with_teacher=False).index
    assert (manifest["shards"], "teacher" in manifest["files"]) == ([], False)
    centres = unpack_rows(unpack(out, manifest["lists"]["centres"]), 30 // lists.LIST, lists.LEVELS)
    seen = []
    for place, each in enumerate(read_lists(out)):
        ids = [index.ids_by_digest[digest][0] for digest in each["digests"]]
        rows = index.rows("student", np.array(ids))
        assert (rows @ centres.T).argmax(1).tolist() == [place] * len(ids)
        assert np.abs(each["rough"] - rows).max() <= 0.5001 / lists.ROUGH
        assert np.abs(np.concatenate(each["rows"]) - rows).max() <= 0.5001 / lists.LEVELS
        seen += ids
    assert sorted(seen) == list(range(30))
    assert manifest["lists"]["recall"] >= lists.RECALL


def test_an_update_of_lists_keeps_their_centres_and_writes_those_that_changed(
    folder, student_file, own, tmp_path, small_lists
):
    index, out, student = tmp_path / "idx", tmp_path / "site", OnnxEmbedder(student_file)
    for i in range(30):
        picture(100 + i).save(folder / f"more{i}.png")
    build_index([folder], student, index)
    build_site_by_name(index, out, SiteOptions(runtime=own))
    before, centres = read_lists(out), manifest_of(out)["lists"]["centres"]
    picture(77).save(folder / "new.png")
    build_index([folder], student, index, options=IndexOptions(update=True))
    build_site_by_name(index, out, SiteOptions(runtime=own, update=True))
    after = read_lists(out)
    assert manifest_of(out)["lists"]["centres"] == centres
    assert sum(a["name"] != b["name"] for a, b in zip(before, after, strict=True)) == 1
    assert sum(len(each["digests"]) for each in after) == sum(len(each["digests"]) for each in before) + 1


def test_every_file_that_the_page_names_is_there(page_root, own, tmp_path):
    out = tmp_path / "site"
    build_site_by_name(page_root / "idx", out, SiteOptions(runtime=own))
    manifest = manifest_of(out)
    page = (out / "index.html").read_text()
    named = {*re.findall(r'(?:href|src)="([^"#]+)"', page), *manifest["files"].values(), *manifest["scripts"]}
    assert len(named) == 8  # icon, style and script of the page, worker, student, teacher, runtime
    scripts = [(out / name).read_text() for name in manifest["scripts"] if name.endswith(".js")]
    assert not any(re.search(r"^(import|export) ", script, re.MULTILINE) for script in scripts)
    assert {name for name in named if not (out / name).is_file()} == set()
    assert len(list((out / "data/pictures").iterdir())) == 60


def test_an_update_writes_what_changed_and_removes_the_rest(folder, student_file, own, tmp_path):
    index, out = tmp_path / "idx", tmp_path / "site"
    student = OnnxEmbedder(student_file)
    build_index([folder], student, index)
    options = SiteOptions(runtime=own)
    build_site_by_name(index, out, options)
    before = files_of(out)
    with pytest.raises(UsageError, match="Give --update"):
        build_site_by_name(index, out, options)
    update = SiteOptions(runtime=own, update=True)
    assert "0.0 MB written, 0 files removed" in build_site_by_name(index, out, update)
    assert files_of(out) == before
    (folder / "3.png").unlink()
    picture(77).save(folder / "new.png")
    build_index([folder], student, index, options=IndexOptions(update=True))
    stamps = {name: (out / name).stat().st_mtime_ns for name in before}
    build_site_by_name(index, out, update)
    after = files_of(out)
    gone, new = set(before) - set(after), set(after) - set(before)
    assert (len(gone), len(new)) == (4, 4)  # rows, facts, and two pictures each way
    assert [name for name in before if name in after and stamps[name] != (out / name).stat().st_mtime_ns] == [
        "manifest.json"
    ]


def test_photos_lie_in_parts_by_digest_and_a_new_one_changes_one_part():
    digests = [f"{i * 2654435761 % 2**32:08x}{i:024x}" for i in range(3 * PART)]
    parts = [[digests[i] for i in part] for part in divide(digests)]
    assert [digest for part in parts for digest in part] == sorted(digests)
    assert max(map(len, parts)) < 1.2 * PART
    more = [*digests, "80000000" + "f" * 24]
    changed = [[more[i] for i in part] for part in divide(more)]
    assert sum(a != b for a, b in zip(parts, changed, strict=True)) == 1


def test_rows_keep_the_nearest(unit_rows):
    rows, queries = unit_rows(500, 64), unit_rows(50, 64, seed=1)
    read = unpack_rows(pack_rows(rows), 500)
    nearest = [np.argsort(-(queries @ each.T), 1)[:, :10] for each in (rows, read)]
    assert np.mean([len(set(a) & set(b)) for a, b in zip(*nearest, strict=True)]) > 9.9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"title_column": "price"}, "no column 'price', only shop"),
        ({"pictures": "https://shop.example/{sku}.jpg"}, "no column 'sku'"),
        ({"pictures": "https://shop.example/a.jpg"}, "--no-thumbnails takes an address with"),
        ({"pictures": "javascript:{name}"}, "--no-thumbnails takes an http(s) address or a relative one"),
        ({"pictures": "https://[shop/{name}"}, "--no-thumbnails takes an http(s) address or a relative one"),
    ],
)
def test_what_does_not_fit_is_one_line_before_any_work(page_root, own, tmp_path, options, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        build_site_by_name(page_root / "idx", tmp_path / "site", SiteOptions(runtime=own, **options))
    assert not (tmp_path / "site").exists()


def test_a_folder_of_something_else_is_left_alone(page_root, own, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    done = CliRunner().invoke(
        app,
        ["site", str(page_root / "idx"), "--out", str(tmp_path / "out"), "--update", "--runtime", str(own)],
    )
    assert (done.exit_code, "is no site, and not empty" in done.stderr) == (2, True)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("template", "source"),
    [
        ("https://pictures.example/{shop}/{name}", "https://pictures.example"),
        ("//pictures.example/{name}", "pictures.example"),  # by the scheme of the page
        ("https://{shop}.example/{name}", "https://*"),
        ("https://{shop}.example:8443/{name}", "https://*:*"),
    ],
)
def test_pictures_elsewhere_are_named_and_allowed(page_root, own, tmp_path, template, source):
    out = tmp_path / "site"
    build_site_by_name(page_root / "idx", out, SiteOptions(pictures=template, runtime=own))
    assert manifest_of(out)["pictures"] == {"small": template, "large": template}
    assert not (out / "data/pictures").exists()
    assert f"img-src 'self' blob: {source};" in (out / "index.html").read_text()


def test_a_photo_that_is_gone_has_no_picture(folder, student_file, own, tmp_path, caplog):
    build_index([folder], OnnxEmbedder(student_file), tmp_path / "idx")
    (folder / "3.png").unlink()
    with caplog.at_level("INFO", "retrieval"):
        build_site_by_name(tmp_path / "idx", tmp_path / "site", SiteOptions(runtime=own))
    assert "1 photo without a picture, as 3.png" in caplog.text
    assert len(list((tmp_path / "site/data/pictures").iterdir())) == 22


def test_the_styles_are_dark_where_the_browser_asks_for_it():
    styles = read_styles()
    assert styles.count("@media (prefers-color-scheme: dark) {\n:root {") == 1
    assert "\n.dark {" not in styles


def test_a_runtime_of_ones_own_is_whole(own):
    (own / runtime.WASM).unlink()
    with pytest.raises(UsageError, match=f"has no {runtime.WASM}"):
        runtime.find_runtime(own)


def test_without_npm_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"Install Node\.js\. Or give --runtime FOLDER"):
        runtime.find_runtime(cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("code", "said"), [(0, "is not onnxruntime-web"), (1, "npm could not fetch .* ENOTFOUND")]
)
def test_what_npm_brings_is_checked(tmp_path, monkeypatch, code, said):
    def pack(command, cwd, **_):
        if code == 0:
            (Path(cwd) / "other.tgz").write_bytes(b"another package")
        return subprocess.CompletedProcess(command, code, "", "npm error code ENOTFOUND")

    monkeypatch.setattr(runtime.shutil, "which", lambda name: name)
    monkeypatch.setattr(runtime.subprocess, "run", pack)
    with pytest.raises(RetrievalError, match=said):
        runtime.find_runtime(cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_an_update_keeps_the_options_that_are_not_given(folder, student_file, own, tmp_path):
    index, out = tmp_path / "idx", tmp_path / "site"
    (tmp_path / "t.csv").write_text("path,sku\n0.png,A1\n")
    build_index(
        [folder], OnnxEmbedder(student_file), index, options=IndexOptions(metadata=tmp_path / "t.csv")
    )
    given = SiteOptions("Shop", "sku", pictures="https://shop.example/{sku}.jpg", large=False, runtime=own)
    build_site_by_name(index, out, given)
    before = json.loads((out / "manifest.json").read_bytes())
    assert (before["large"], before["own_runtime"]) == (False, True)
    build_site_by_name(index, out, SiteOptions(update=True))
    assert json.loads((out / "manifest.json").read_bytes()) == before
    build_site_by_name(index, out, SiteOptions("Store", update=True))
    assert json.loads((out / "manifest.json").read_bytes())["title"] == "Store"
