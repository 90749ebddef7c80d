"""The inner channels of a network's blocks: where they are, and how some of them are taken away.

A channel is inner if one convolution makes it, another reads it, and nothing else of the network sees it:
the expansion of an inverted residual block, the narrow middle of a bottleneck. What a block puts out keeps
its width, so that shortcuts and the maps that a student pools stay as they are.
"""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

from distill.model.backbone import run_watched

SAME = 1e-3  # of the largest output: what counts as no change


@dataclass
class Inner:
    """The channels between two convolutions of one block."""

    name: str  # of the block
    producer: nn.Conv2d  # makes them
    between: list[nn.Module]  # what works on each channel by itself, in order: activations, depthwise, SE
    consumer: nn.Conv2d  # reads them

    @property
    def width(self) -> int:
        """Count the channels."""
        return self.producer.out_channels

    @property
    def squeezes(self) -> list[nn.Conv2d]:
        """The first convolutions of the gates: as the consumer, they read all channels."""
        return [gates[0] for part in self.between if (gates := _convolutions(part)) and gates[0] is not part]

    @property
    def parts(self) -> list[nn.Conv2d]:
        """All convolutions that have a row or a column for each channel."""
        between = [inner for part in self.between for inner in _convolutions(part)]
        return [self.producer, *between, self.consumer]

    def keep(self, kept: Tensor, replaced: Tensor, constant: Tensor) -> None:
        """Take away all channels but the `(k,)` kept ones, in place.

        What the consumer read of the others it reads of what stands for them: `(width, k)` weights of the
        kept channels, the unit vectors for these themselves, and a `(width,)` constant, 0 for these.
        """
        reader = self.consumer
        weight, bias = reader.weight.detach(), reader.bias  # (out, width, h, w)
        offset = torch.einsum("ochw,c->o", weight, constant.to(weight))
        offset += 0 if bias is None else bias.detach()
        read = torch.einsum("ochw,ck->okhw", weight, replaced.to(weight)).contiguous()
        reader.weight, reader.bias = _like(reader.weight, read), _like(reader.weight, offset)
        reader.in_channels = len(kept)
        _take_rows(self.producer, kept)
        for part in self.between:
            if isinstance(part, nn.Conv2d):
                _take_rows(part, kept)
                part.groups = part.in_channels = len(kept)
            elif gates := _convolutions(part):
                gates[0].weight = _like(gates[0].weight, gates[0].weight.detach()[:, kept])
                gates[0].in_channels = len(kept)
                _take_rows(gates[-1], kept)

    def narrow(self, width: int) -> None:
        """Keep the first channels alone; nothing stands for the others."""
        kept = torch.arange(width)
        self.keep(kept, torch.eye(self.width)[:, kept], torch.zeros(self.width))


def find_inner(network: nn.Module, example: Tensor) -> list[Inner]:
    """Find the inner channels of a network whose batch normalisation is folded, by what an example meets."""
    parts = [part for part in network.modules() if _acts_by_channel(part) or _is_dense(part)]
    inside = {inner for part in parts for inner in part.modules() if inner is not part}
    learning, example = network.training, example.to(next(network.parameters()).device)
    _, calls = run_watched(network.eval(), example, [part for part in parts if part not in inside])
    names = {part: name for name, part in network.named_modules()}
    made: dict[int, tuple[nn.Conv2d, list[nn.Module]]] = {}
    read = Counter[int]()  # how often an output was read
    found: list[tuple[int, Inner]] = []
    for part, inputs, output in calls:
        if not inputs:
            continue
        source = id(inputs[0])
        read[source] += id(output) != source
        before = made.get(source)
        if _is_dense(part):
            if before and (block := _shared_block(names[before[0]], names[part], network)):
                found.append((source, Inner(block, *before, part)))
            made[id(output)] = (part, [])
        elif before:
            made[id(output)] = (before[0], [*before[1], part])
    likely = [inner for source, inner in found if read[source] == 1]
    if not _unseen(network, example, likely):  # something that is no module reads some of them
        likely = [inner for inner in likely if _unseen(network, example, [inner])]
    network.train(learning)
    return likely


@torch.no_grad()
def _unseen(network: nn.Module, example: Tensor, inner: Sequence[Inner]) -> bool:
    """Tell whether a change of each group's first channel changes nothing where its readers do not look."""
    network, inner = deepcopy((network, inner))
    for group in inner:
        for reader in (group.consumer, *group.squeezes):
            reader.weight[:, 0] = 0
    before = network(example)
    for group in inner:
        group.producer.weight[0] += 1
    after = network(example)
    return torch.allclose(before, after, rtol=SAME, atol=SAME * float(before.abs().max()))


def _acts_by_channel(part: nn.Module) -> bool:
    """Tell whether a part maps each channel to one channel and is small enough to be known."""
    if isinstance(part, nn.Conv2d):
        return part.groups == part.in_channels == part.out_channels > 1
    if "squeezeexcite" in type(part).__name__.lower():
        return len(_convolutions(part)) == 2
    return not list(part.children()) and not list(part.parameters())


def _is_dense(part: nn.Module) -> TypeGuard[nn.Conv2d]:
    return isinstance(part, nn.Conv2d) and part.groups == 1


def _shared_block(first: str, second: str, network: nn.Module) -> str:
    """Name the nearest common parent of two parts; empty if that is the network or a list of blocks."""
    parents = [first.rsplit(".", steps)[0] for steps in range(1, first.count(".") + 1)]
    shared = next((parent for parent in parents if second.startswith(f"{parent}.")), "")
    return "" if "." not in shared or isinstance(network.get_submodule(shared), nn.Sequential) else shared


def _convolutions(part: nn.Module) -> list[nn.Conv2d]:
    return [inner for inner in part.modules() if isinstance(inner, nn.Conv2d)]


def _take_rows(part: nn.Conv2d, kept: Tensor) -> None:
    """Keep some of the outputs of a convolution."""
    part.weight = _like(part.weight, part.weight.detach()[kept])
    if part.bias is not None:
        part.bias = _like(part.bias, part.bias.detach()[kept])
    part.out_channels = len(kept)


def _like(former: Tensor, values: Tensor) -> nn.Parameter:
    """Make a parameter that learns if the former did: one of another shape must be another object."""
    return nn.Parameter(values.clone(), requires_grad=former.requires_grad)
