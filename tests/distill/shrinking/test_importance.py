"""Which channels go first, and what stands for them."""

import numpy as np
import torch
from torch import nn

from distill.shrinking.channels import Inner
from distill.shrinking.importance import Statistics, measure


def group(width: int, outputs: int = 5) -> Inner:
    return Inner("block", nn.Conv2d(3, width, 1), [], nn.Conv2d(width, outputs, 1))


def statistics(values: torch.Tensor, outputs: int = 5) -> Statistics:
    mean = values.mean(dim=0)
    centred = values - mean
    return Statistics(mean, centred.T @ centred / len(values), torch.eye(outputs).double())


def test_losses_are_those_of_the_best_fit_by_those_that_stay():
    torch.manual_seed(0)
    values = torch.randn(4000, 12).double() @ (torch.eye(12) + 0.3 * torch.randn(12, 12)).double()
    inner, found = group(12), statistics(values)
    weight = inner.consumer.weight.detach().double().flatten(1)
    order, losses = found.eliminate(inner)
    assert sorted(order) == list(range(12))
    aim = values @ weight.T
    for gone in (1, 4, 7):
        kept = torch.tensor(sorted(order[gone:]))
        read, constant = found.replace(kept)
        now = (values[:, kept] @ read.double().T + constant.double()) @ weight.T
        some = torch.cat([values[:, kept], torch.ones(len(values), 1).double()], dim=1)
        best = aim - some @ torch.linalg.lstsq(some, aim).solution
        assert np.isclose((aim - now).pow(2).sum(), best.pow(2).sum(), rtol=0.02)
        assert np.isclose(sum(losses[:gone]), best.pow(2).sum() / len(values), rtol=0.05)


def test_a_copy_goes_first_and_its_twin_stays():
    torch.manual_seed(0)
    values = torch.randn(1000, 10).double()
    values[:, 7] = values[:, 2]
    inner = group(10)
    order, losses = statistics(values).eliminate(inner)
    assert order[0] in (2, 7)
    assert losses[0] < 0.02 * losses[1]
    assert {2, 7} != set(order[:2])


def test_what_similarities_do_not_feel_costs_nothing():
    values = torch.randn(1000, 6).double()
    inner, found = group(6), statistics(values)
    with torch.no_grad():
        inner.consumer.weight.zero_()
        inner.consumer.weight[0, :3] = 1
        inner.consumer.weight[1, 3:] = 100
    sensitivity = torch.zeros(5, 5).double()
    sensitivity[0, 0] = 1  # of the second output, which the last three channels feed, none
    order, losses = Statistics(found.mean, found.covariance, sensitivity).eliminate(inner)
    assert set(order[:3]) == {3, 4, 5}
    assert sum(losses[:3]) == 0


def test_measuring_changes_nothing_and_sees_what_the_consumer_reads():
    torch.manual_seed(0)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.one.weight.requires_grad = False

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.two(self.one(images.permute(0, 3, 1, 2) / 255))
            return nn.functional.normalize(maps.mean(dim=(2, 3)), dim=1)

    network = Network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randint(0, 256, (40, 6, 6, 3), dtype=torch.uint8)
    targets = nn.functional.normalize(torch.randn(40, 4), dim=1)
    inner = [Inner("", network.one, [], network.two)]
    (found,) = measure(network, inner, images, targets, torch.arange(40))
    read = network.one(images.permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1).flatten(0, 2).double()
    assert torch.allclose(found.mean, read.mean(dim=0), atol=0.02)
    assert torch.allclose(found.covariance, torch.cov(read.T), atol=0.02)
    assert torch.linalg.matrix_rank(found.sensitivity) > 1
    assert not network.one.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.two.weight.grad is None
