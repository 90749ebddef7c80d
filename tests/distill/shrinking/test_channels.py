"""Channels that nothing else reads: where they are, and what taking them away does."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from distill.model.backbone import Backbone, create_backbone
from distill.shrinking.channels import find_inner

SIDE = 64


def make(name: str) -> Backbone:
    """A network of random weights and statistics, folded."""
    torch.manual_seed(0)
    network = create_backbone(name, "none").eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            part.bias.data.normal_()
    network.fold_batch_norm()
    return network


def images(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "groups", "block"),
    [
        ("tf_efficientnet_lite0", 15, "trunk.blocks.1.0"),
        ("mobilenetv3_small_100", 10, "trunk.blocks.1.0"),  # with squeeze and excitation
        ("mobilenetv4_conv_small", 12, "trunk.blocks.2.0"),
        ("efficientnet_b0", 15, "trunk.blocks.1.0"),
        ("resnet18", 8, "trunk.layer1.0"),
        ("convnext_atto", 12, "trunk.stages.0.blocks.0.mlp"),
    ],
)
def test_only_what_nothing_else_reads_is_inner(name, groups, block):
    network, shown = make(name), images()
    found = find_inner(network, shown)
    assert len(found) == groups
    assert found[0].name == block
    with torch.no_grad():
        for group in (found[0], found[-1]):
            blind = deepcopy(network)
            same = next(one for one in find_inner(blind, shown) if one.name == group.name)
            same.consumer.weight[:, 0] = 0
            for gate in same.squeezes:  # it sees the channel, and tells the others
                gate.weight[:, 0] = 0
            before = blind(shown)
            same.producer.bias[0] += 3
            assert torch.allclose(blind(shown), before, atol=1e-4)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_100", "resnet18", "resnet50"])
def test_a_network_without_channels_is_the_network_with_their_rows_at_zero(name):
    network, shown = make(name), images()
    masked = deepcopy(network)
    with torch.no_grad():
        for one, group in zip(find_inner(masked, shown), find_inner(network, shown), strict=True):
            kept = torch.randperm(group.width)[: group.width // 2].sort()[0]
            gone = torch.tensor(sorted(set(range(group.width)) - set(kept.tolist())))
            one.consumer.weight[:, gone] = 0
            for gate in one.squeezes:
                gate.weight[:, gone] = 0
            group.keep(kept, torch.eye(group.width)[:, kept], torch.zeros(group.width))
        expected = masked(shown)
        assert (network(shown) - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in masked.parameters())


def test_a_channel_without_weights_is_a_constant_that_is_not_lost():
    network, shown = make("tf_efficientnet_lite0"), images()
    group = find_inner(network, shown)[3]
    with torch.no_grad():  # its producer and its depthwise filter are zero: it puts out its bias, rectified
        group.producer.weight[5] = 0
        group.between[1].weight[5] = 0
        group.between[1].bias[5] = 0.7
        expected = network(shown)
        kept = torch.tensor([i for i in range(group.width) if i != 5])
        constant = torch.zeros(group.width)
        constant[5] = 0.7
        group.keep(kept, torch.eye(group.width)[:, kept], constant)
        assert torch.allclose(network(shown), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["regnetx_002", "vit_tiny_patch16_224"])
def test_a_network_without_such_blocks_has_none(name):
    network = create_backbone(name, "none").eval()
    shown = torch.zeros(2, network.side, network.side, 3, dtype=torch.uint8)
    assert find_inner(network, shown) == []


def test_what_is_read_by_no_module_is_seen_all_the_same():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.act = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 8, 1), nn.ReLU()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            wide = self.act(self.one(images.permute(0, 3, 1, 2) / 255))
            return torch.cat([self.two(wide), wide[:, :4]], dim=1).mean(dim=(2, 3))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Module()
            self.trunk.block = Gated()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.trunk.block(images)

    network = Whole()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert find_inner(network, images()) == []
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
