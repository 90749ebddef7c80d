"""Networks of other families, cut for a student."""

import numpy as np
import pytest
import torch
from torch import nn

from distill.model.backbone import create_backbone
from distill.model.export import check_parity
from index.errors import RetrievalError


def test_features_are_channels_where_a_map_has_them_last():
    backbone = create_backbone("mambaout_femto", "none")
    channels = [stage["num_chs"] for stage in backbone.trunk.feature_info][backbone.default_stages - 1]
    backbone.keep_stages(backbone.default_stages)
    assert backbone.dim == channels
    with torch.no_grad():
        for side in (64, 128):
            assert backbone(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape == (1, channels)


class Table(nn.Module):
    """Answers the n-th image of a call with the n-th row."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.rows, self.place = torch.from_numpy(rows), 0

    def forward(self, images):
        start, self.place = self.place, self.place + len(images)
        return self.rows[start : self.place]


class File:
    """As an ONNX file that answers with these rows."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def embed(self, batch):
        return self.rows[: len(batch)]


@pytest.mark.parametrize(
    ("spread", "error", "alarm"),
    [
        pytest.param(1e-3, 2e-7, "", id="untrained: near to nothing between the images"),
        pytest.param(1.0, 2e-7, "", id="trained"),
        pytest.param(2e-2, 3e-5, "ranks differently", id="rankings that another network would give"),
        pytest.param(1.0, 1e-3, "differs from the network by", id="other values"),
    ],
)
def test_only_what_is_more_than_rounding_raises_an_alarm(spread, error, alarm):
    rng = np.random.default_rng(0)
    rows = np.ones(64) / 8 + spread * rng.normal(size=(32, 64)) / 8
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = rows + error * rng.choice([-1, 1], size=rows.shape)
    pixels = np.zeros((32, 8, 8, 3), np.uint8)
    module, file = Table(rows.astype(np.float32)), File(found.astype(np.float32))
    if not alarm:
        assert check_parity(module, file, 8, pixels) < 1e-6
        return
    with pytest.raises(RetrievalError, match=alarm):
        check_parity(module, file, 8, pixels)
