"""Ways through noise side by side: what is asked together is run together, and nobody gets another's answer."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution.conditioning import NetworkConditions
from flowsmith.execution.networks import Family, run_network
from flowsmith.execution.time_limit import TimeLimitError, time_limit
from flowsmith.execution.together import Join, walk_together
from tests.execution.layouts.small import T5_WIDTH, flux, mmdit, unet


def told(rows: int, tokens: int = 3, pooled: bool = False, mark: float = 0.0) -> NetworkConditions:
    return NetworkConditions(
        torch.full((rows, tokens, 2), mark),
        torch.full((rows, 4), mark) if pooled else None,
        torch.zeros(rows, 7),
        torch.zeros(rows),
    )


class Network:
    """Answers each row with its latents plus timestep, text and pooled text; counts rows call by call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, latents: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
        assert len(told.states) == len(told.sizes) == len(told.guidance) == len(latents)
        self.calls.append(len(latents))
        pooled = torch.zeros(len(latents)) if told.pooled is None else told.pooled[:, 0]
        return latents + (timestep.float() + told.states[:, 0, 0] + pooled).reshape(-1, 1, 1, 1)


def walk(
    network: Network,
    steps: int,
    rows: int = 1,
    mark: float = 0.0,
    shape: tuple[int, ...] = (1, 2, 2),
    **how: Any,
) -> Callable[[Join], list[float]]:
    """A walk that calls the network at timesteps 10, 11, ... and returns what it got of zeros."""

    def go(join: Join) -> list[float]:
        run, got = join(network), []
        for step in range(steps):
            answer = run(torch.zeros(rows, *shape), torch.tensor(10 + step), told(rows, mark=mark, **how))
            assert answer.shape == (rows, *shape)
            got.append(float(answer.mean()))
        return got

    return go


def test_calls_are_joined_while_there_are_several() -> None:
    network = Network()
    got = walk_together([walk(network, 3, 2, 0.5), walk(network, 1, 3, 0.25), walk(network, 5, 1, 100.0)])
    assert got == [[10.5, 11.5, 12.5], [10.25], [110.0, 111.0, 112.0, 113.0, 114.0]]
    assert network.calls == [6, 3, 3, 1, 1]


def test_calls_of_unlike_shapes_stay_apart() -> None:
    network, other = Network(), Network()
    walks = [
        walk(network, 1, 1, 1.0), walk(network, 1, 1, 2.0, shape=(1, 4, 4)), walk(network, 1, 1, 3.0, tokens=6),
        walk(network, 1, 1, 4.0, pooled=True), walk(other, 1, 1, 5.0), walk(network, 1, 1, 6.0, pooled=True),
    ]  # fmt: skip
    assert walk_together(walks) == [[11.0], [12.0], [13.0], [18.0], [15.0], [22.0]]
    assert network.calls == [1, 1, 1, 2]
    assert other.calls == [1]


def test_one_thread_runs_at_a_time_in_the_order_of_the_ways() -> None:
    trace: list[str] = []

    def go(name: str, steps: int, join: Join) -> None:
        run = join(Network())
        for step in range(steps):
            trace.append(f"{name}{step}")
            run(torch.zeros(1, 1, 1, 1), torch.tensor(step), told(1))

    with torch.inference_mode():
        walk_together([lambda join: go("a", 2, join), lambda join: go("b", 3, join)])
    assert trace == ["a0", "b0", "a1", "b1", "b2"]


@pytest.mark.parametrize("inference", [True, False])
def test_walks_compute_as_their_caller_does(inference: bool) -> None:
    with torch.inference_mode(inference):
        modes = walk_together([lambda join: torch.is_inference_mode_enabled()] * 2)
    assert modes == [inference] * 2


def test_what_a_walk_raises_ends_them_all() -> None:
    before = threading.active_count()

    def bad(join: Join) -> list[float]:
        walk(network, 2)(join)
        raise ArithmeticError("no further")

    network = Network()
    with pytest.raises(ArithmeticError, match="no further"):
        walk_together([walk(network, 9), bad, walk(network, 9)])
    assert network.calls == [3, 3]
    assert threading.active_count() == before


def test_what_a_network_raises_ends_them_all() -> None:
    before = threading.active_count()

    def full(latents: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
        raise torch.OutOfMemoryError("too many rows")

    with pytest.raises(torch.OutOfMemoryError):
        walk_together([lambda join: join(full)(torch.zeros(1, 1, 1, 1), torch.tensor(1), told(1))] * 2)
    assert threading.active_count() == before


@pytest.mark.parametrize("ways", [1, 2])
def test_time_is_looked_at_before_every_call(ways: int) -> None:
    network = Network()
    with time_limit(60.0), time_limit(-1.0), pytest.raises(TimeLimitError):
        walk_together([walk(network, 1)] * ways)
    assert network.calls == []
    with time_limit(60.0):
        walk_together([walk(network, 1)] * ways)


def network_told(family: Family, rows: int, seed: int) -> NetworkConditions:
    width = {"sdxl": 96, "sd3": T5_WIDTH, "flux": T5_WIDTH}[family]
    pooled = {"sdxl": 64, "sd3": 96, "flux": 32}[family]
    noise = torch.Generator().manual_seed(seed)
    return NetworkConditions(
        torch.randn(rows, 5, width, generator=noise),
        torch.randn(rows, pooled, generator=noise),
        torch.full((rows, 7), 64.0 + seed),
        torch.full((rows,), 1.0 + seed),
    )


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_every_family_takes_rows_of_unlike_timesteps(family: Family) -> None:
    network = {"sdxl": lambda: unet("sdxl"), "sd3": mmdit, "flux": flux}[family]()
    channels = {"sdxl": 4, "sd3": 16, "flux": 16}[family]

    def run(latents: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
        return run_network(
            family, network, latents, timestep, told.states, told.pooled, told.sizes, told.guidance
        )

    def go(seed: int, rows: int, timestep: float, join: Join) -> Tensor:
        latents = torch.randn(rows, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
        return join(run)(latents, torch.tensor(timestep), network_told(family, rows, seed))

    with torch.inference_mode():
        walks = [lambda join: go(1, 2, 900.0, join), lambda join: go(2, 1, 20.0, join)]
        together = walk_together(walks)
        alone = [walk_together([one])[0] for one in walks]
    for got, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert float((alone[0][0] - alone[1][0]).abs().mean()) > 1e-3
