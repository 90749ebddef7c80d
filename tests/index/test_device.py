import onnxruntime
import pytest

import index.device
from index.device import CPU, CUDA, check_provider, choose_provider
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.stores.faiss.vector_index import use_gpu


@pytest.mark.parametrize(
    ("device", "available", "gpus", "chosen"),
    [
        ("auto", [CPU], 0, CPU),
        ("auto", [CUDA, CPU], 0, CPU),  # the GPU build on a machine without a GPU
        ("auto", [CPU], 1, CPU),  # the CPU build on a machine with one
        ("auto", [CUDA, CPU], 1, CUDA),
        ("cpu", [CUDA, CPU], 1, CPU),
        ("cuda", [CUDA, CPU], 2, CUDA),
    ],
)
def test_provider(device, available, gpus, chosen):
    assert choose_provider(device, available, gpus) == chosen


def test_cuda_that_cannot_be_had_says_why():
    with pytest.raises(UsageError, match="the driver sees no GPU"):
        choose_provider("cuda", [CUDA, CPU], 0)
    with pytest.raises(UsageError, match="install the gpu extra"):
        choose_provider("cuda", [CPU], 1)
    with pytest.raises(UsageError, match="No device 'tpu'"):
        choose_provider("tpu", [CPU], 0)


def test_a_silent_fall_back_is_an_error_where_the_gpu_was_asked_for():
    check_provider("cuda", CUDA, [CUDA, CPU])
    with pytest.raises(UsageError, match=f"fell back from {CUDA} to {CPU}. Install .* or give --device cpu"):
        check_provider("cuda", CUDA, [CPU])


def test_a_gpu_that_cannot_be_used_is_said_once_and_does_without(student_file, monkeypatch, capsys):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None)
    monkeypatch.setattr("index.embedders.onnx.count_gpus", lambda: 1)
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        "onnxruntime.InferenceSession", lambda *given, providers: session(*given, providers=[CPU])
    )
    index.device._say_once.cache_clear()
    models = [OnnxEmbedder(student_file), OnnxEmbedder(student_file)]
    assert [model.provider for model in models] == [CPU, CPU]
    assert capsys.readouterr().err == "The GPU cannot be used here: embedding on the CPU.\n"
    with pytest.raises(UsageError, match="fell back"):
        OnnxEmbedder(student_file, "cuda")


@pytest.mark.parametrize(
    ("device", "gpus", "kind", "used"),
    [
        ("auto", 0, "IndexFlatIP", False),
        ("auto", 1, "IndexFlatIP", True),
        ("cuda", 1, "IndexIVFFlat", True),
        ("cpu", 1, "IndexFlatIP", False),
        ("auto", 1, "IndexHNSWFlat", False),
    ],
)
def test_faiss_goes_to_the_gpu_where_it_can(device, gpus, kind, used):
    assert use_gpu(device, gpus, kind) is used
