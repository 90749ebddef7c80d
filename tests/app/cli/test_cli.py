"""What a user types: exit code, stdout and stderr; a few times in a process of its own."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from command import refused, refused_line, retrieval
from conftest import picture, write_embedder
from PIL import Image

from index.stores.folder import Index
from index.teachers.ledger import Ledger, default_ledger


def start(*arguments: object) -> subprocess.CompletedProcess:
    """Run the command in a process of its own, as a user does."""
    command = [sys.executable, "-m", "retrieval", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def index(folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path) -> Path:
    out = tmp_path / "idx"
    done = retrieval("index", folder, "--model", student_file, "--teacher", teacher_file, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("12 images, 0 refused.")
    assert "img/s" in done.stderr
    return out


def test_an_index_is_kept_up_to_date_and_looked_after(index: Path, folder: Path, student_file, teacher_file):
    models = ("--model", student_file, "--teacher", teacher_file, "--out", index)
    Image.open(folder / "0.png").rotate(90).save(folder / "new.png")
    (folder / "1.png").rename(folder / "moved.png")
    (folder / "2.png").unlink()
    (folder / "copy.png").write_bytes((folder / "3.png").read_bytes())
    done = retrieval("index", folder, *models, "--update")
    assert done.stdout == f"{index}: 12 images in 13 files, 0 refused.\n"
    assert "3 of 13 images new or changed" in done.stderr
    assert "1 image gone, and dropped. Once it is back, --update adds it." in done.stderr
    facts = json.loads(retrieval("index", "info", index, "--json").stdout)
    assert (facts["images"], facts["copies"], facts["spaces"].keys()) == (12, 1, {"student", "teacher"})
    assert "teacher.onnx, 12 dimensions; Flat" in retrieval("index", "info", index).stdout
    assert retrieval("index", "verify", index).stdout == "All is well.\n"
    (folder / "moved.png").unlink()
    assert f"{index} is in one part: 1 file dropped" in retrieval("index", "compact", index).stdout
    results = json.loads(retrieval("search", index, folder / "0.png", "-k", 99, "--json").stdout)
    found = {hit["name"]: hit["copies"] for hit in results["queries"][0]["results"]}
    assert "moved.png" not in found
    assert found["3.png"] == [str(folder / "copy.png")]
    (Index(index).data / "student.npy").write_bytes(b"nothing")
    done = retrieval("index", "verify", index)
    assert done.returncode == 1
    assert "student.npy has 7 bytes" in done.stdout


def test_a_word_that_is_no_command_of_index_is_a_source():
    assert "Usage: retrieval index build" in retrieval("index", "--help").stdout
    assert "Usage: retrieval index verify" in retrieval("index", "verify", "--help").stdout
    assert "m.onnx does not exist" in refused("index", "nowhere", "--model", "m.onnx", "--out", "idx")


def test_help_lists_the_commands():
    text = retrieval("--help").stdout
    for command in ("export", "distill", "index", "search", "evaluate", "quantize", "serve", "demo"):
        assert command in text


def test_search_prints_a_list_and_json(index: Path, folder: Path):
    lines = retrieval("search", index, folder / "0.png", "-k", 3).stdout.splitlines()
    assert lines[0] == str(folder / "0.png")
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    done = retrieval(
        "search", index, folder / "0.png", folder / "1.png", "-k", 3, "--mode", "teacher", "--json"
    )
    answer = json.loads(done.stdout)
    assert answer["mode"] == "teacher"
    assert [len(query["results"]) for query in answer["queries"]] == [3, 3]
    assert answer["queries"][0]["results"][0]["path"] != str(folder / "0.png")


def test_a_search_is_narrowed_by_metadata_prefix_and_cut(
    folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path
):
    rows = [f"{i}.png,{'odd' if i % 2 else 'even'}" for i in range(10)]
    (tmp_path / "table.csv").write_text("\n".join(["path,parity", *rows, "gone.png,odd"]))
    idx, rows_of = tmp_path / "idx", dict(row.split(",") for row in rows)
    models = "--model", student_file, "--teacher", teacher_file
    done = retrieval("index", folder, *models, "--out", idx, "--metadata", tmp_path / "table.csv")
    assert done.returncode == 0, done.stderr
    assert "table.csv: 1 row without an image, 2 images without a row." in done.stderr
    assert "student: Flat, recall@10 1.000" in done.stderr

    def found(*options: object) -> list[str]:
        done = retrieval("search", idx, folder / "1.png", "-k", 12, "--json", *options)
        assert done.returncode == 0, done.stderr
        hits = json.loads(done.stdout)["queries"][0]["results"]
        assert all(
            hit["metadata"] == {"parity": rows_of[hit["name"]]} for hit in hits if hit["name"] in rows_of
        )
        return [hit["name"] for hit in hits]

    odd = found("--where", "parity=odd", "--mode", "rerank")
    assert sorted(odd) == ["3.png", "5.png", "7.png", "9.png"]
    assert odd == [name for name in found("--mode", "teacher") if name in odd]
    assert sorted(found("--prefix", "more/")) == ["more/10.jpg", "more/11.jpg"]
    assert 1 <= len(found("--cut", "0.99")) < 11
    assert "no column 'size', only parity" in refused("search", idx, folder / "1.png", "--where", "size=1")
    assert "No image has parity=both: parity is even, odd." in refused(
        "search", idx, folder / "1.png", "--where", "parity=both"
    )
    assert "column=value" in refused("search", idx, folder / "1.png", "--where", "parity")


def test_a_photo_that_is_in_the_index_is_named(index: Path, folder: Path, tmp_path: Path):
    query = tmp_path / "found somewhere.png"
    query.write_bytes((folder / "3.png").read_bytes())
    found = retrieval("search", index, query, "-k", 2)
    assert found.stdout.splitlines()[1] == f"     itself {folder / '3.png'}"
    assert json.loads(retrieval("search", index, query, "--json").stdout)["queries"][0]["same"] == [
        str(folder / "3.png")
    ]
    alone = retrieval("search", index, query, "--prefix", "3.png").stdout.splitlines()
    assert alone[1:] == [f"     itself {folder / '3.png'}", "     no other image matches"]


def test_a_query_that_cannot_be_read_does_not_stop_the_others(index: Path, folder: Path, tmp_path: Path):
    (tmp_path / "bad.jpg").write_text("text")
    done = retrieval("search", index, tmp_path / "bad.jpg", folder / "0.png", "--json")
    assert done.returncode == 1
    bad, good = json.loads(done.stdout)["queries"]
    assert bad["error"] == "not an image that can be read"
    assert not bad["results"]
    assert len(good["results"]) == 10


def test_evaluate_prints_one_json_object(index: Path, folder: Path, tmp_path: Path):
    rows = [f"{path.relative_to(tmp_path)},{i % 3}" for i, path in enumerate(sorted(folder.rglob("*.??g")))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    options = ("--queries", tmp_path / "labels.csv", "--labels", tmp_path / "labels.csv")
    scores = json.loads(retrieval("evaluate", index, *options, "--json").stdout)
    assert scores.keys() == {"student", "teacher", "rerank"}
    assert 0 < scores["student"]["mAP"] < 1
    assert "teacher" in retrieval("evaluate", index, *options, "--mode", "teacher").stdout


def test_evaluate_on_revisited_ground_truth(index: Path, folder: Path, tmp_path: Path):
    (tmp_path / "queries").mkdir()
    picture(0).save(tmp_path / "queries" / "q.png")
    entry = {"bbx": [2, 2, 46, 38], "easy": [0], "hard": [1], "junk": [2]}
    truth = {"imlist": [str(i) for i in range(12)], "qimlist": ["q"], "gnd": [entry]}
    (tmp_path / "gnd.json").write_text(json.dumps(truth))
    options = ("--queries", tmp_path / "queries", "--revisited", tmp_path / "gnd.json")
    scores = json.loads(retrieval("evaluate", index, *options, "--json").stdout)
    assert scores.keys() == {"student", "teacher", "rerank"}
    assert scores["student"]["mAP E"] == 1
    table = retrieval("evaluate", index, *options, "--mode", "student", "--whiten", 0.5).stdout.splitlines()
    assert [row[:13].strip() for row in table[:4]] == ["mode", "student E", "student M", "student H"]
    assert table[4].startswith("1 queries (1 E, 1 M, 1 H) against 12 images")
    assert "do not go together" in refused("evaluate", index, *options, "--labels", tmp_path / "x.csv")
    assert "--whiten must lie between" in refused("evaluate", index, *options, "--whiten", 2)
    (tmp_path / "queries" / "q.png").unlink()
    assert "No image in" in refused("evaluate", index, *options)


def broken_files(folder: Path) -> dict[str, str]:
    """Fill a folder with every bad file; return those that must be refused, with the reason."""
    picture(50).convert("CMYK").save(folder / "cmyk.jpg")
    Image.new("I;16", (20, 20), 40000).save(folder / "deep.png")
    palette = picture(51).convert("P")
    palette.save(folder / "palette.png", transparency=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(52).save(folder / "turned.jpg", exif=exif)
    picture(53).save(folder / "moving.gif", save_all=True, append_images=[picture(54)])
    whole = (folder / "turned.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("I am a text file")
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(60_001 * 100))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, pixels)]
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    (folder / "red\x1b[31m\n.jpg").write_text("This name would colour a terminal, and break the line")
    return {
        "red\x1b[31m\n.jpg": "not an image",
        "cut.jpg": "broken image",
        "text.jpg": "not an image",
        "huge.png": "too large",
    }


def test_bad_images_are_listed_and_counted_and_never_stop_a_run(
    folder: Path, tmp_path: Path, student_file: Path
):
    expected = broken_files(folder)
    out = tmp_path / "idx"
    done = retrieval("index", folder, "--model", student_file, "--out", out)
    assert done.returncode == 0
    assert "17 images, 4 refused." in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    reasons = {Path(failure.path).name: failure.reason for failure in Index(out).failures}
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]
        assert name.replace("\x1b", r"\x1b").replace("\n", r"\n") in done.stderr
    turned = next(item for item in Index(out).items if item.name == "turned.jpg")
    assert (turned.width, turned.height) == (40, 48)


def test_a_process_ends_with_its_exit_code_and_writes_each_thing_where_it_belongs(
    folder: Path, tmp_path: Path, student_file: Path
):
    done = start("index", folder, "--model", student_file, "--out", tmp_path / "idx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("12 images, 0 refused.")
    assert "img/s" in done.stderr
    assert "is not an index" in refused_line(start("search", folder, folder / "0.png"))
    (tmp_path / "bad.jpg").write_text("text")
    done = start("search", tmp_path / "idx", tmp_path / "bad.jpg", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["queries"][0]["error"] == "not an image that can be read"


def test_wrong_requests_end_in_one_line(
    index: Path, folder: Path, tmp_path: Path, student_file: Path, teacher_file: Path
):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    model = ("--model", student_file, "--out", out)
    distil = ("--teacher", teacher_file, "--out", out, "--ledger", tmp_path / "l.sqlite")
    assert "nowhere does not exist" in refused("index", tmp_path / "nowhere", *model)
    assert "No image in" in refused("index", tmp_path / "empty", *model)
    assert "nowhere does not exist" in refused("distill", tmp_path / "nowhere", *distil)
    assert "Missing argument 'images'. See retrieval distill --help." in refused("distill")
    assert "No such command 'dance'. See retrieval --help." in refused("dance")
    assert "Did you mean retrieval index info? See retrieval --help." in refused("info", "idx")
    assert "retrieval index verify or retrieval ledger verify?" in refused("verify", "idx")
    assert "No such option: --wat. See retrieval --help." in refused("--wat")
    assert "'-k' requires an argument. See retrieval search --help." in refused("search", "idx", "-k")
    assert "Invalid value for '-k': give a whole number." in refused("search", "idx", "0.png", "-k", "two")
    assert "Invalid value for '--recall': give a number." in refused("index", folder, "--recall", "high")
    assert "--budget must be at least 2, not 0" in refused("distill", folder, *distil, "--budget", 0)
    assert "timm has no model 'nonsense'" in refused("distill", folder, *distil, "--student", "nonsense")
    assert "--device cuda does not work" in refused("index", folder, *model, "--device", "cuda")
    assert "is not an ONNX model" in refused("index", folder, "--model", folder / "0.png", "--out", out)
    assert "exists and is not an index" in refused("index", folder, "--model", student_file, "--out", folder)
    assert "is not an index" in refused("search", folder, folder / "0.png")
    assert "cannot be searched in mode 'psychic'" in refused(
        "search", index, folder / "0.png", "--mode", "psychic"
    )
    assert not out.exists()


def test_an_index_made_by_another_model_is_refused_by_name(index: Path, folder: Path, tmp_path: Path):
    other = write_embedder(tmp_path / "other.onnx", dim=12, seed=5)
    line = refused("search", index, folder / "0.png", "--mode", "teacher", "--teacher", other)
    assert "made with another teacher: teacher.onnx" in line
    assert "not other.onnx" in line


def test_debug_shows_the_traceback(tmp_path: Path):
    done = start("--debug", "search", tmp_path, tmp_path / "x.jpg")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (("--recipe", "nope"), "No recipe 'nope'"),
        (("--student", "nope"), "timm has no model 'nope'"),
        (("--select", "nope"), "--select must be one of kmeans"),
        (("--variants", "int4"), "No variant 'int4'"),
        (("--size", 8), "--size must be at least 32"),
        (("--weights", "nope.pth"), r"nope.pth does not exist"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(folder: Path, tmp_path: Path, teacher_file, option, complaint):
    run = ("distill", folder, "--teacher", teacher_file, "--out", tmp_path / "s", "--dry-run")
    ledger = tmp_path / "l.sqlite"
    assert complaint in refused(*run, "--ledger", ledger, *option)
    assert not ledger.exists()


def test_a_dry_run_loads_no_torch_and_says_once_what_is_left_out(folder: Path, tmp_path: Path, teacher_file):
    (folder / "a.jxl").write_text("none")
    run = ["distill", folder, "--teacher", teacher_file, "--out", tmp_path / "s", "--dry-run"]
    code = (
        "import sys; from app.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "images            12\n" in done.stdout
    assert done.stderr.splitlines()[-1] == (
        "left out: 1 file of formats that are not read (1 .jxl): convert them"
    )
    assert done.stderr.count("left out:") == 1


def test_indexing_ends_with_what_is_in_and_what_is_not(folder: Path, tmp_path: Path, student_file: Path):
    (folder / "a.jxl").write_text("none")
    (folder / "bad.png").write_text("none")
    done = retrieval("index", folder, "--model", student_file, "--out", tmp_path / "idx")
    assert done.stderr.splitlines()[-2:] == [
        "12 images indexed, 1 refused: 1 not an image that can be read. Mend them, then give --update, or "
        "leave them out with --exclude.",
        "left out: 1 file of formats that are not read (1 .jxl): convert them",
    ]


def test_a_student_is_named_by_its_folder_too(folder: Path, tmp_path: Path, student_file: Path):
    (tmp_path / "made").mkdir()
    student_file.rename(tmp_path / "made" / "student.onnx")
    done = retrieval("index", folder, "--model", tmp_path / "made", "--out", tmp_path / "idx")
    assert done.returncode == 0, done.stderr
    line = refused("index", folder, "--model", folder, "--out", tmp_path / "other")
    assert "student.onnx does not exist. Give the ONNX file of a model." in line


def test_ledgers_are_found_without_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert f"No ledger is in {tmp_path}" in refused("ledger", "show")
    assert "gone.sqlite does not exist" in refused("ledger", tmp_path / "gone.sqlite")
    assert "No such command 'shw'. Did you mean 'show'?" in refused("ledger", "shw")
    for key in ("one", "other"):
        with Ledger(default_ledger(key), key):
            pass
    told = [json.loads(line) for line in retrieval("ledger", "--json").stdout.splitlines()]
    assert {each["teacher"]: each["file"] for each in told} == {
        key: str(default_ledger(key)) for key in ("one", "other")
    }
    assert retrieval("ledger", "show").stdout.count("answers    0,") == 2


def test_imports_go_one_way():
    """`index` loads without torch and Gradio, `distill` without Gradio: asked of the interpreter itself."""
    code = (
        "import sys, index.build.pipeline, index.search, index.evaluation.evaluate\n"
        "assert not {'torch', 'gradio', 'distill', 'app'} & set(sys.modules), sys.modules.keys()\n"
        "import distill.pipeline\n"
        "assert not {'gradio', 'app'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("module", "extra"), [("onnxruntime", "cpu"), ("faiss", "cpu")])
def test_a_missing_package_names_its_extra(
    module: str, extra: str, folder: Path, student_file: Path, tmp_path: Path
):
    assert_asks_for(module, extra, "index", folder, "--model", student_file, "--out", tmp_path / "out")


@pytest.mark.parametrize("module", ["jinja2", "markupsafe", "gradio"])
def test_the_page_names_its_extra(index: Path, module: str):
    assert_asks_for(module, "demo", "serve", index)


def assert_asks_for(module: str, extra: str, *arguments: object) -> None:
    """Run a command without a module: it names the extra, in one line."""
    hide = f"import sys; sys.modules[{module!r}] = None; from app.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hide, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f'{module} is not installed. Install it with: pip install -e ".[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_beside_a_student_is_no_student(folder: Path, tmp_path: Path, student_file: Path):
    """The student that lies there must not be changed in its place."""
    notes = student_file.with_name("README.md")
    notes.write_text("mine")
    before = student_file.read_bytes()
    line = refused_line(retrieval("quantize", notes, folder, "--bits", 8))
    assert "is no student. Give a student's folder" in line
    assert student_file.read_bytes() == before
