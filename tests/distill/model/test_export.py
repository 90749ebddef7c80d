from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from conftest import picture
from PIL import Image

import distill
from distill.model.backbone import create_backbone
from distill.model.export import (
    Ensemble,
    Resize,
    Unit,
    check_parity,
    count_parameters,
    export_model,
    export_onnx,
)
from distill.model.student import Student
from index.embedders.onnx import OnnxEmbedder
from index.errors import RetrievalError, UsageError


@pytest.fixture(scope="module")
def tiny() -> Student:
    torch.manual_seed(0)
    backbone = create_backbone("test_efficientnet", "none")
    backbone.keep_stages(3)  # each takes the export a second
    return Student(backbone, 6).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny) -> Path:
    out = tmp_path_factory.mktemp("exported") / "s.onnx"
    return export_onnx(tiny, out, 64, 6, {"model": "tiny"}, crop=0.875)


def test_one_file_that_carries_everything(tiny, exported):
    out = exported
    assert [path.name for path in out.parent.iterdir()] == ["s.onnx"]
    model = OnnxEmbedder(out)
    assert (model.dim, model.side, model.crop) == (6, 64, 0.875)
    assert model.metadata["retrieval.model"] == "tiny"
    assert int(model.metadata["retrieval.parameters"]) == count_parameters(tiny)
    graph = onnx.load(out).graph
    (images,), (embeddings,) = graph.input, graph.output
    assert (images.name, embeddings.name) == ("images", "embeddings")
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert images.type.tensor_type.shape.dim[0].dim_param  # not frozen
    assert check_parity(tiny, model, 64) < 1e-4


def test_a_file_of_another_network_fails_the_check(exported):
    torch.manual_seed(1)
    other = Student(create_backbone("test_efficientnet", "none"), 6).eval()
    with pytest.raises(RetrievalError, match="differs from the network"):
        check_parity(other, OnnxEmbedder(exported), 64)


@pytest.mark.slow
def test_any_timm_model_can_be_exported(tmp_path):
    out = export_model("test_vit", tmp_path / "t.onnx", "none")
    model = OnnxEmbedder(out)
    assert model.side == 160
    images = list(np.random.default_rng(0).integers(0, 256, (3, 160, 160, 3), dtype=np.uint8))
    assert np.linalg.norm(model.embed(images), axis=1) == pytest.approx(1, abs=1e-5)


def test_there_must_be_a_folder_to_write_to(tmp_path, tiny):
    with pytest.raises(UsageError, match="does not exist"):
        export_onnx(tiny, tmp_path / "no" / "s.onnx", 64, 6, {})
    with pytest.raises(UsageError, match="is a folder"):
        export_onnx(tiny, tmp_path, 64, 6, {})


@pytest.mark.parametrize("target", [17, 31, 60])
def test_the_resize_in_the_graph_is_pillows(target):
    image = picture(0, 40, 40)
    ours = Resize(40, target)(torch.from_numpy(np.asarray(image).copy())[None]).numpy()
    theirs = np.asarray(image.resize((target, target), Image.Resampling.BICUBIC), float)
    assert np.abs(ours[0] - theirs).max() <= 1.5  # Pillow rounds to whole values, twice


def test_an_ensemble_is_unit_vectors_side_by_side():
    torch.manual_seed(0)
    parts = {
        32: create_backbone("test_efficientnet", "none"),
        48: create_backbone("test_efficientnet", "none"),
    }
    images = torch.randint(0, 256, (2, 48, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        both = Ensemble(parts, 48).eval()(images)
        large = Unit(parts[48]).eval()(images)
    assert torch.allclose(both.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(both[:, large.shape[1] :] * 2**0.5, large, atol=1e-4)


def test_no_path_of_this_machine_is_in_the_file(exported):
    data = exported.read_bytes()
    for path in (torch.__file__, timm.__file__, distill.__file__, str(exported)):
        assert str(Path(path).parents[1]).encode() not in data
    assert b"File " not in data
    assert b".py" not in data
