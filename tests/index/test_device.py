import pytest

from index.device import CPU, CUDA, assert_provider, choose_provider
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


def test_a_silent_fall_back_is_an_error():
    assert_provider(CUDA, [CUDA, CPU])
    with pytest.raises(UsageError, match=f"fell back from {CUDA} to {CPU}"):
        assert_provider(CUDA, [CPU])


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
