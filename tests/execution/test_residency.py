"""Networks on a device within a bound. The device is the CPU too here: what is brought there is a copy."""

import gc

import pytest
import torch
from torch import Tensor, nn

from flowsmith.execution.residency import Residency

SIZE = 4 * (8 * 8 + 8)  # bytes of a layer


def layers(*inner: nn.Module) -> nn.Module:
    return nn.Sequential(*inner).requires_grad_(False)


def pointers(network: nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in network.parameters()]


@pytest.fixture
def residency() -> Residency:
    return Residency(torch.device("cpu"), 2 * SIZE)


def test_the_one_unused_for_longest_goes_back(residency: Residency) -> None:
    networks = [layers(nn.Linear(8, 8)) for _ in range(3)]
    homes = [pointers(network) for network in networks]
    values = [network(torch.ones(8)) for network in networks]

    def away() -> list[bool]:
        return [pointers(network) != home for network, home in zip(networks, homes, strict=True)]

    for step, there in (
        (0, [1, 0, 0]),
        (1, [1, 1, 0]),
        (0, [1, 1, 0]),
        (2, [1, 0, 1]),
        (2, [1, 0, 1]),
        (1, [0, 1, 1]),
    ):
        assert residency.fetch(networks[step]) is networks[step]
        assert away() == there
        assert residency.bytes == sum(there) * SIZE
    assert all(
        torch.equal(network(torch.ones(8)), value) for network, value in zip(networks, values, strict=True)
    )


def test_what_networks_share_is_counted_once_and_stays_with_the_one_in_use(residency: Residency) -> None:
    shared, own, other = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    first, second = layers(shared, own), layers(shared, other)
    home = shared.weight.data_ptr()
    residency.fetch(first)
    residency.fetch(second)  # takes the place of ``own``, and keeps what both have
    assert residency.bytes == 2 * SIZE
    assert shared.weight.data_ptr() != home
    assert own.weight.data_ptr() == pointers(first)[2]
    residency.fetch(first)
    x = torch.ones(8)
    assert torch.equal(first(x), own(shared(x)))


def test_one_too_large_is_brought_all_the_same(residency: Residency) -> None:
    large = layers(*(nn.Linear(8, 8) for _ in range(5)))
    residency.fetch(layers(nn.Linear(8, 8)))
    residency.fetch(large)
    assert residency.bytes == 5 * SIZE


def test_a_network_that_is_gone_takes_no_room(residency: Residency) -> None:
    kept = layers(nn.Linear(8, 8))
    gone: nn.Module | None = layers(nn.Linear(8, 8))
    residency.fetch(kept)
    residency.fetch(gone)  # type: ignore[arg-type]
    del gone
    gc.collect()
    assert residency.bytes == SIZE
    home = pointers(kept)
    residency.fetch(layers(nn.Linear(8, 8)))
    assert pointers(kept) == home


def test_sent_away_and_last_one_gone_it_is_brought_again() -> None:
    tight = Residency(torch.device("cpu"), SIZE)
    first = layers(nn.Linear(8, 8))
    home = pointers(first)
    tight.fetch(first)
    tight.fetch(layers(nn.Linear(8, 8)))  # dies at once
    gc.collect()
    assert pointers(first) == home
    tight.fetch(first)
    assert pointers(first) != home


def test_buffers_travel_too(residency: Residency) -> None:
    norm = nn.BatchNorm1d(8).requires_grad_(False).eval()
    mean: Tensor = norm.running_mean  # type: ignore[assignment]
    home = mean.data_ptr()
    residency.fetch(norm)
    assert mean.data_ptr() != home
