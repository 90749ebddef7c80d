"""How fast this machine trains now, beside the one that limits in seconds were set on."""

from statistics import median
from time import perf_counter

import torch
from torch import nn

USUAL = 0.15  # seconds of the work below on two quiet cores, where the main job trains for 240


def slowness() -> float:
    """Measure how many times as long as usual a fixed piece of training takes now."""
    # What a student is made of: wide maps, each channel filtered by itself, and mixed at each place
    layers = [nn.Conv2d(3, 32, 3, 2, 1), nn.Hardtanh(0, 6)]
    for inside, wide, stride in ((32, 96, 1), (32, 144, 2), (48, 240, 2)):
        outside = 32 if stride == 1 else 48
        layers += [nn.Conv2d(inside, wide, 1), nn.Hardtanh(0, 6)]
        layers += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide), nn.Hardtanh(0, 6)]
        layers += [nn.Conv2d(wide, outside, 1)]
    network, images = nn.Sequential(*layers), torch.ones(32, 3, 64, 64)

    def work() -> float:
        start = perf_counter()
        network(images).square().mean().backward()
        return perf_counter() - start

    work()
    return median(work() for _ in range(9)) / USUAL
