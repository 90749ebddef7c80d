"""A gallery of codes behaves as one of vectors, or says in one line what it does not do."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import refused
from conftest import picture, write_embedder
from fastapi import FastAPI
from starlette.testclient import TestClient

import retrieval
from app.page.report.measure import weigh
from app.page.report.views import render_sizes
from app.page.search.tab import SearchPage
from app.page.views import render_heading
from app.server.api import build_api
from app.server.concurrency import SharedSearcher
from distill.model.codes import append_codes
from distill.options import Options as DistillOptions
from distill.pipeline import start
from distill.upgrade import upgrade_by_name
from index.build.pipeline import build_by_name
from index.build.rewrite import compact_index
from index.duplicates import list_duplicates
from index.embedders.base import embed_many
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.evaluation.evaluate import evaluate_by_name
from index.evaluation.rankings import Options, check_modes
from index.search import open_searcher
from index.stores.filters import Filter
from index.stores.folder import PARTED
from index.stores.maintenance import describe_index, verify_index
from index.stores.milvus.client import Address
from index.stores.milvus.store import open_collection
from index.stores.milvus.writer import MilvusWriter
from index.stores.options import IndexOptions
from index.stores.writing import later
from index.stores.writing.store import FolderStore
from index.teachers.spec import TeacherSpec, TextSpec
from index.vectors import CODES, pack

ALONE = TeacherSpec()


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A student with codes of 16 bits."""
    file = write_embedder(tmp_path / "student.onnx", dim=24, seed=1)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    pixels = pixels.repeat(8, axis=1).repeat(8, axis=2)
    append_codes(file, embed_many(OnnxEmbedder(file), list(pixels)), 16, pixels[:4])
    return file


def index(source: Path, student: Path, out: Path, teacher: TeacherSpec = ALONE, **options):
    chosen = IndexOptions(**{"codes": 16, **options})
    return build_by_name([source], student, FolderStore(out), teacher, "cpu", chosen)


def test_a_gallery_of_codes_is_searched_checked_and_described(folder, student, tmp_path):
    out = tmp_path / "idx"
    index(folder, student, out, rescore=0)
    searcher = open_searcher(out, device="cpu")
    codes = searcher.index.rows("student")
    assert (codes.dtype, codes.shape) == (np.uint8, (12, 2))
    similarity = CODES.similarity(codes[:3], codes)
    similarity[np.arange(3), np.arange(3)] = -np.inf  # no item finds itself
    found = searcher.search_items([0, 1, 2], "student", 4)
    assert found.scores.tolist() == (-np.sort(-similarity, axis=1)[:, :4]).tolist()
    narrowed = searcher.search(codes[:1], "student", 10, (), Filter(prefix="more/")).hits()
    assert {searcher.index.items[item].name for item, _ in narrowed} == {"more/10.jpg", "more/11.jpg"}
    facts = describe_index(out)
    assert (facts.spaces["student"].bits, facts.spaces["student"].rescore) == (16, 0)
    assert "16 bits; Flat" in str(facts)
    assert verify_index(out) == []


def test_a_program_says_how_many_are_ordered_again(folder, student, tmp_path):
    made = retrieval.build_index(folder, student, out=tmp_path / "idx", codes=16, rescore=5)
    assert made.searcher.index.manifest.spaces["student"].rescore == 5


def test_the_floats_of_a_query_order_what_codes_found(folder, student, tmp_path):
    index(folder, student, tmp_path / "idx", rescore=5)
    searcher = open_searcher(tmp_path / "idx", device="cpu")
    query = searcher.models["student"].embed([np.asarray(picture(3).resize((32, 32)))])
    assert query.shape == (1, 16) and np.linalg.norm(query) == pytest.approx(1)
    codes = searcher.index.rows("student")
    scores, ids = (found[0] for found in searcher.open_space("student").search(query, 3))
    first = np.argsort(-CODES.similarity(pack(query), codes)[0], kind="stable")
    least = CODES.similarity(pack(query), codes)[0][first[4]]
    assert (CODES.similarity(pack(query), codes)[0][ids] >= least).all()
    assert scores == pytest.approx(CODES.similarity(query, codes)[0][ids])


def test_a_student_keeps_its_codes_where_variants_are_refused(folder, student):
    before = student.read_bytes()
    for named in (student.parent, student):
        asked = "quantize", named, folder, "--bits", 8, "--variants"
        assert "No variant 'fp8'. There are fp16, int8" in refused(*asked, "fp8")
        assert f"{student.parent} is not a student folder: run.json is missing" in refused(*asked, "fp16")
    assert student.read_bytes() == before


def test_an_update_goes_on_with_codes_and_refuses_vectors(folder, student, tmp_path, monkeypatch):
    out = tmp_path / "idx"
    index(folder, student, out)
    picture(50).save(folder / "new.png")
    assert len(index(folder, student, out, update=True).store) == 13
    fresh = index(folder, student, tmp_path / "fresh").store
    assert (
        index(folder, student, out, update=True).store.rows("student").tolist()
        == fresh.rows("student").tolist()
    )
    before = (out / "manifest.json").read_text()
    index(folder, student, out, update=True)
    assert (out / "manifest.json").read_text() == before
    index(folder, student, out, update=True, rescore=7)
    assert describe_index(out).spaces["student"].rescore == 7
    assert "the first 7 ordered again by floats; Flat, recall@10 1.000 of 0.95 asked" in str(
        describe_index(out)
    )
    picture(51).save(folder / "later.png")
    index(folder, student, out, update=True)
    assert describe_index(out).spaces["student"].rescore == 7, "an update that does not say keeps it"
    with pytest.raises(UsageError, match=r"holds codes of 16 bits: give --codes 16, or"):
        index(folder, student, out, update=True, codes=0)
    index(folder, student, tmp_path / "floats", codes=0)
    with pytest.raises(UsageError, match=r"holds vectors: leave out --codes, or"):
        index(folder, student, tmp_path / "floats", update=True)


def test_what_is_told_of_codes_is_in_bytes_and_what_does_not_fit_is_refused_early(folder, student, tmp_path):
    index(folder, student, tmp_path / "idx")
    assert describe_index(tmp_path / "idx").spaces["student"].bytes_per_vector == 2
    index(folder, student, tmp_path / "floats", codes=0)
    assert describe_index(tmp_path / "floats").spaces["student"].bytes_per_vector == 4 * 24
    with pytest.raises(UsageError, match="--rescore is for codes"):
        IndexOptions(rescore=50)
    with pytest.raises(UsageError, match=r"is an index\. Give another folder as --out"):
        start(tmp_path / "idx", DistillOptions())
    searcher = open_searcher(tmp_path / "idx", device="cpu")
    with pytest.raises(UsageError, match="--whiten is for vectors"):
        check_modes(searcher, Options(None, 0.5))


def test_a_gallery_of_codes_is_compacted(folder, student, tmp_path):
    out = tmp_path / "idx"
    index(folder, student, out, rescore=3)
    (folder / "3.png").unlink()
    assert compact_index(out).files == 1
    assert describe_index(out).spaces["student"].rescore == 3
    assert verify_index(out) == []


def test_a_large_gallery_of_codes_is_updated_in_two_parts(folder, student, tmp_path, monkeypatch):
    monkeypatch.setattr(later, "LARGE", 4)
    monkeypatch.setattr(later, "MOST_LATER", 0.5)
    out = tmp_path / "idx"
    index(folder, student, out, rescore=100)
    (folder / "3.png").unlink()
    picture(50).save(folder / "50.png")
    made = index(folder, student, out, rescore=100, update=True).store
    assert (made.manifest.format, len(made)) == (PARTED, 12)
    assert verify_index(out) == []
    index(folder, student, tmp_path / "whole", rescore=100)
    answers = []
    for searcher in (open_searcher(out, device="cpu"), open_searcher(tmp_path / "whole", device="cpu")):
        items = searcher.index.items
        queries = embed_many(
            searcher.models["student"], [np.asarray(picture(i, 32, 32)) for i in range(60, 64)]
        )
        found = searcher.search(queries, "student", 6)
        answers.append(
            [[(items[i].name, round(score, 4)) for i, score in found.hits(row)] for row in range(4)]
        )
    assert answers[0] == answers[1]


def test_a_run_of_codes_goes_on(folder, student, tmp_path, monkeypatch):
    fresh = index(folder, student, tmp_path / "fresh").store.rows("student").tolist()
    with monkeypatch.context() as broken:
        broken.setattr(FolderStore, "put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            index(folder, student, tmp_path / "idx")
    monkeypatch.setattr(OnnxEmbedder, "embed", lambda *_: pytest.fail("embedded again"))
    assert index(folder, student, tmp_path / "idx", resume=True).store.rows("student").tolist() == fresh


def test_the_page_tells_of_bits_and_knows_the_run(folder, student, tmp_path):
    run = {"options": {"student": "tiny"}, "queried": 20}
    export = {"key": OnnxEmbedder(student).key, "megabytes": 3.4}
    (tmp_path / "run.json").write_text(json.dumps(run | {"export": export}))
    index(folder, student, tmp_path / "idx")
    searcher = open_searcher(tmp_path / "idx", device="cpu")
    known = searcher.index.read_run()
    assert known and known["queried"] == 20
    heading = render_heading(searcher.index, known)
    assert "tiny, 3.4 MB, distilled from 20 answers, 16 bits, 2 B per image" in heading
    assert "<td>16 bits</td><td>2 B</td>" in render_sizes(weigh(searcher))
    photo = {"item": 3, "modes": ["student"], "k": 4}
    assert '<span role="cell">2</span>' in SearchPage(searcher).search(photo)["numbers"]
    index(folder, student, tmp_path / "floats", codes=0)
    assert "24-d, 96 B per image" in render_heading(open_searcher(tmp_path / "floats", device="cpu").index)


def test_duplicates_by_codes_of_few_photos_say_that_these_tell_little(folder, student, tmp_path):
    index(folder, student, tmp_path / "idx")
    found = list_duplicates(tmp_path / "idx")
    assert found.images == 12
    assert found.warning.startswith("Codes of fewer than 1000 images")
    assert found.warning in str(found)
    index(folder, student, tmp_path / "floats", codes=0)
    assert not list_duplicates(tmp_path / "floats").warning


def test_evaluation_ranks_as_a_search_does(folder, student, tmp_path):
    for i in range(12):  # each query is a gallery photo, changed a little
        picture(i, 52, 40).save(tmp_path / f"query-{i}.png")
    labels = [("images/" + ("more/" * (i > 9)) + f"{i}.{'jpg' if i > 9 else 'png'}", i) for i in range(12)]
    (tmp_path / "gallery.csv").write_text("path,label\n" + "".join(f"{p},{n}\n" for p, n in labels))
    queries = "".join(f"query-{i}.png,{i}\n" for i in range(12))
    (tmp_path / "queries.csv").write_text("path,label\n" + queries)
    scores = {}
    for rescore in (0, 1, 12):
        out = tmp_path / f"idx-{rescore}"
        index(folder, student, out, rescore=rescore)
        files = tmp_path / "queries.csv", tmp_path / "gallery.csv"
        scores[rescore] = evaluate_by_name(out, *files, None, ALONE, "cpu", Options())["student"]
        with pytest.raises(UsageError, match="--whiten is for vectors, and this index holds codes"):
            evaluate_by_name(out, *files, None, ALONE, "cpu", Options(whiten=0.5))
    assert scores[0]["mAP"] == scores[1]["mAP"] > 0.5
    assert scores[12]["mAP"] >= scores[0]["mAP"]


def test_with_a_teacher_it_is_ordered_again_and_not_projected(folder, student, teacher_file, tmp_path):
    teacher = TeacherSpec(str(teacher_file))
    index(folder, student, tmp_path / "idx", teacher)
    searcher = open_searcher(tmp_path / "idx", device="cpu")
    assert searcher.modes == ["student", "teacher", "rerank"]
    both = searcher.search_items([3], "rerank", 11), searcher.search_items([3], "teacher", 11)
    assert both[0].ids.tolist() == both[1].ids.tolist()


def test_the_api_answers(folder, student, tmp_path):
    index(folder, student, tmp_path / "idx")
    app = FastAPI()
    app.include_router(build_api(SharedSearcher(open_searcher(tmp_path / "idx", device="cpu"))))
    client, photo = TestClient(app), (folder / "3.png").read_bytes()
    answer = client.post("/search?k=4", files={"image": photo}).json()
    assert "3.png" not in [hit["name"] for hit in answer["results"]], "no photo finds itself"
    assert len(answer["results"]) == 4
    assert client.get("/search?id=3&k=4").json()["results"][0]["id"] != 3
    assert client.post("/embed", files={"image": photo}).json()["dim"] == 16


def test_what_is_for_vectors_is_refused_in_one_line(folder, student, teacher_file, tmp_path):
    index(folder, student, tmp_path / "idx")
    with pytest.raises(UsageError, match=r"holds codes, which words do not search. Index without --codes"):
        open_searcher(tmp_path / "idx", device="cpu", text=TextSpec("text.onnx"))
    with pytest.raises(UsageError, match="holds codes, which a new student cannot search"):
        upgrade_by_name(tmp_path / "idx", TeacherSpec(str(teacher_file)), tmp_path / "new", None)
    with pytest.raises(UsageError, match="--factory is for vectors"):
        IndexOptions(factory="HNSW32", codes=16)
    with pytest.raises(UsageError, match="--codes and --rescore must be 0 or more, not 16 and -1"):
        IndexOptions(codes=16, rescore=-1)
    with pytest.raises(UsageError, match="--codes must be a multiple of 8, as the student has them, not 12"):
        IndexOptions(codes=12)
    plain = write_embedder(tmp_path / "plain.onnx", dim=24)
    with pytest.raises(UsageError, match="has no codes"):
        index(folder, plain, tmp_path / "other")


@pytest.mark.slow  # a server is started
def test_a_milvus_server_finds_the_codes_that_the_index_folder_finds(
    folder, student, milvus_server, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    index(folder, student, tmp_path / "idx", rescore=0)
    address = Address(milvus_server.uri, "codes")
    for rescore, writes in ((0, 12), (0, 0), (6, 0)):
        options = IndexOptions(codes=16, rescore=rescore)
        milvus = MilvusWriter(address, tmp_path / "work")
        report = build_by_name([folder], student, milvus, ALONE, "cpu", options)
        assert f": {writes} new" in report.summary
        made = open_collection(str(address)).manifest.spaces["student"]
        assert (made.factory, made.bits, made.rescore) == ("BIN_FLAT", 16, rescore)
    ours, theirs = (open_searcher(where, device="cpu") for where in (str(address), tmp_path / "idx"))
    ours.index.pin()
    codes, names = theirs.index.rows("student"), {item.name: i for i, item in enumerate(ours.index.items)}
    same = [names[item.name] for item in theirs.index.items]
    assert np.array_equal(ours.index.rows("student", np.array(same)), codes)
    floats = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    for queries in (codes[:4], floats):
        scores, ids = ours.index.open_space("student", "cpu").search(queries, 6)
        for line in range(4):
            places = [same.index(i) for i in ids[line]]
            np.testing.assert_allclose(
                scores[line],
                CODES.similarity(queries[line : line + 1], codes[places])[0],
                rtol=1e-6,
                atol=1e-7,  # sums near 0 are of numbers that are not
            )
        nearest = np.sort(CODES.similarity(codes[:4], codes), axis=1)[:, -6:]
        if queries is not floats:
            np.testing.assert_allclose(scores, nearest[:, ::-1], rtol=1e-6)
