from pathlib import Path

import faiss
import numpy as np
import onnx
import pytest
from conftest import picture, write_embedder

from distill.model.codes import append_codes, append_codes_by_name, embed_views, fit_codes
from distill.model.quantize import make_variants
from distill.options import check_bits
from index.embedders.base import embed_checked, embed_many
from index.embedders.onnx import OnnxEmbedder, bits_of
from index.errors import RetrievalError, UsageError
from index.vectors import pack


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Two hundred images that differ enough for their order to mean something."""
    coarse = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture
def file(tmp_path: Path, pixels) -> Path:
    """A student of 24 dimensions with codes of 16 bits."""
    file = write_embedder(tmp_path / "student.onnx", dim=24, seed=1)
    append_codes(file, embed_many(OnnxEmbedder(file), list(pixels)), 16, pixels[:8])
    return file


def test_codes_are_appended_and_the_vectors_stay_the_same_to_the_last_bit(tmp_path, file, pixels):
    plain = OnnxEmbedder(write_embedder(tmp_path / "plain.onnx", dim=24, seed=1))
    student, images = OnnxEmbedder(file), list(pixels[:9])
    assert student.embed(images).tobytes() == plain.embed(images).tobytes()
    assert student.key != plain.key, "a key is of the whole file: nothing in it can claim another's"
    coded, floats = OnnxEmbedder(file, bits=16), OnnxEmbedder(file, bits=16, floats=True)
    assert coded.key == floats.key != student.key
    assert (bits_of(coded.key), bits_of(student.key)) == (16, 0)
    codes = embed_checked(coded, images, ["image"] * 9)
    rows = embed_checked(floats, images, ["image"] * 9)
    assert (codes.dtype, codes.shape, rows.shape) == (np.uint8, (9, 2), (9, 16))
    assert pack(rows).tolist() == codes.tolist()
    mean, axes = fit_codes(embed_many(plain, list(pixels)), 16, embed_views(plain, pixels[:8]))
    made = np.zeros_like(codes)
    projected = np.ascontiguousarray((plain.embed(images) - mean) @ axes)
    faiss.real_to_binary(projected.size, faiss.swig_ptr(projected), faiss.swig_ptr(made))
    assert made.tolist() == codes.tolist(), "the bit order of FAISS"


def test_codes_find_what_vectors_find(pixels, file):
    coded, student = OnnxEmbedder(file, bits=16), OnnxEmbedder(file)
    codes, vectors = embed_many(coded, list(pixels)), embed_many(student, list(pixels))
    near = np.argsort(-vectors @ vectors.T, axis=1)[:, 1:11]
    far = np.argsort(-vectors @ vectors.T, axis=1)[:, -10:]
    similarity = coded.vector_type.similarity(codes, codes)
    near, far = (np.take_along_axis(similarity, ids, 1).mean() for ids in (near, far))
    assert near > far + 0.5
    share = np.unpackbits(codes, axis=1).mean(axis=0)
    assert (np.abs(share - 0.5) < 0.25).all(), "every bit is set for about half of the photos"


def test_a_view_keeps_more_of_its_bits_than_without_the_term_for_it(pixels, file):
    student = OnnxEmbedder(file)
    vectors, views = embed_many(student, list(pixels)), embed_views(student, pixels)
    assert embed_views(student, pixels).tobytes() == views.tobytes()

    def shift(agreement: float) -> float:
        mean, axes = fit_codes(vectors[::2], 16, views[::2], agreement=agreement)
        return float((((vectors - mean) @ axes > 0) != ((views - mean) @ axes > 0))[1::2].mean())

    assert shift(3) < 0.9 * shift(0)


def test_other_codes_take_the_place_of_the_first(file, pixels):
    nodes = len(onnx.load(file).graph.node)
    append_codes(file, embed_many(OnnxEmbedder(file), list(pixels)), 24, pixels[:8])
    assert len(onnx.load(file).graph.node) == nodes
    assert OnnxEmbedder(file, bits=24).embed(list(pixels[:2])).shape == (2, 3)


def test_copies_of_a_student_with_codes_are_not_taken_for_it(file, pixels):
    student = OnnxEmbedder(file)
    made = make_variants(student, pixels, ["fp16"])[1]
    assert made.admitted
    assert OnnxEmbedder(file.with_name("student.fp16.onnx")).key != student.key


def test_a_file_is_left_alone_if_its_vectors_would_change(file, pixels, monkeypatch):
    before = file.read_bytes()
    other = np.random.default_rng()
    monkeypatch.setattr(OnnxEmbedder, "embed", lambda self, batch: other.normal(size=(len(batch), 24)))
    with pytest.raises(RetrievalError, match="would change the vectors"):
        append_codes(file, np.random.default_rng(0).normal(size=(50, 24)).astype(np.float32), 8, pixels[:2])
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["student.onnx"]


def test_what_cannot_be_done_is_one_line(tmp_path, file, pixels, unit_rows):
    for bits in (-8, 12):
        with pytest.raises(UsageError, match=f"multiple of 8, such as 64, 128 or 256, not {bits}"):
            check_bits(bits, 24)
    with pytest.raises(UsageError, match=r"--bits 32 is more than the student's 30 dimensions. Give 24."):
        check_bits(32, 30)
    with pytest.raises(UsageError, match="Codes of 16 bits need as many photos; here are 9"):
        fit_codes(unit_rows(9, 24), 16, unit_rows(9, 24))
    flat = unit_rows(50, 24)
    flat[:, 10:] = flat[0, 10:]
    with pytest.raises(UsageError, match=r"vary in 1[01] dimensions, fewer than 16 bits. Give fewer bits"):
        fit_codes(flat, 16, flat)
    with pytest.raises(UsageError, match=r"codes of 16 bits, not of 8.*quantize .* --bits 8"):
        OnnxEmbedder(file, bits=8)
    plain = write_embedder(tmp_path / "plain.onnx", dim=24)
    with pytest.raises(UsageError, match=r"no codes\. Make some: .*quantize .* PHOTOS --bits 16"):
        OnnxEmbedder(plain, bits=16)
    model = onnx.load(file)
    facts = OnnxEmbedder(file).metadata | {"retrieval.bit_order": "big"}
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, tmp_path / "big.onnx")
    with pytest.raises(UsageError, match="codes of 16 bits in big bit order, not of 16 bits in little"):
        OnnxEmbedder(tmp_path / "big.onnx", bits=16)


def test_a_student_with_broken_notes_stays_as_it_is(tmp_path):
    file = write_embedder(tmp_path / "student.onnx", dim=24, seed=1)
    (tmp_path / "run.json").write_text("{}")
    before = file.read_bytes()
    (tmp_path / "photos").mkdir()
    for i in range(20):
        picture(i).save(tmp_path / "photos" / f"{i}.png")
    with pytest.raises(UsageError, match=r"run\.json lacks something"):
        append_codes_by_name(tmp_path, [tmp_path / "photos"], 8)
    assert file.read_bytes() == before


def test_a_student_folder_gets_codes_from_photos(tmp_path):
    write_embedder(tmp_path / "student.onnx", dim=24, seed=1)
    (tmp_path / "photos").mkdir()
    for i in range(20):
        picture(i).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    line = append_codes_by_name(tmp_path, [tmp_path / "photos"], 8)
    assert "codes of 8 bits, fitted to 20 photos" in line
    assert OnnxEmbedder(tmp_path / "student.onnx", bits=8).dim == 1
    with pytest.raises(UsageError, match="Codes of 24 bits need as many photos; here are 20"):
        append_codes_by_name(tmp_path, [tmp_path / "photos"], 24)
