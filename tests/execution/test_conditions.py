"""Conditions in their places: areas, weights, times, sizes; alone and in batches."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowsmith.execution import ExecutionError
from flowsmith.execution.condition_areas import area_weight, placed, with_opposites
from flowsmith.execution.condition_batch import ConditionBatch, NetworkForm
from flowsmith.execution.conditioning import (
    Area,
    Box,
    Condition,
    Conditioning,
    NetworkConditions,
    PictureSize,
)
from flowsmith.execution.denoiser import Denoiser
from flowsmith.execution.sigmas import NoiseTable

TABLE = NoiseTable.from_betas()
FORM = NetworkForm(TABLE, factor=8)
SIZE = (6, 10)


def level(value: float, tokens: int = 4) -> Tensor:
    """An encoding whose every number is ``value``."""
    return torch.full((tokens, 3), value)


def levels(scaled: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
    """A network whose output is the mean of its text."""
    return told.states.mean((1, 2)).view(-1, 1, 1, 1).expand_as(scaled)


def of(*parts: Condition) -> Conditioning:
    return Conditioning(parts)


def outputs(rows: Sequence[Conditioning], sigma: float = 1.0, form: NetworkForm = FORM) -> Tensor:
    """What a batch of rows puts out; -1 where nothing holds."""
    placements = [placed(row, SIZE, form.factor) for row in rows]
    batch = ConditionBatch(placements, [False] * len(rows), SIZE, form)
    latents = torch.zeros(len(rows), 1, *SIZE)
    return batch(levels, latents, torch.tensor(0), sigma, lambda: torch.full_like(latents, -1.0))


def test_what_holds_together_is_averaged_by_strength() -> None:
    mean = outputs([of(Condition(level(1.0), strength=3.0), Condition(level(5.0)))])
    torch.testing.assert_close(mean, torch.full_like(mean, 2.0))


def test_an_area_is_averaged_where_it_lies() -> None:
    """40 x 24 pixels at (24, 32) are 5 x 3 latents from column 3 and row 4, of which one row lies outside."""
    area = Area(40, 24, 24, 32)
    assert area.box(*SIZE, 8) == Box(4, 3, 2, 5)
    (row,) = outputs([of(Condition(level(1.0)), Condition(level(4.0), area=area, strength=2.0))])
    expected = torch.ones(SIZE)
    expected[4:, 3:8] = (1 + 2 * 4) / 3
    torch.testing.assert_close(row[0], expected)


def test_places_without_a_condition_take_what_stands_for_nothing() -> None:
    (row,) = outputs([of(Condition(level(1.0), area=Area(16, 48)))])
    assert row[0, :, :2].unique().tolist() == [1.0]
    assert row[0, :, 2:].unique().tolist() == [-1.0]


@pytest.mark.parametrize(
    ("area", "box"),
    [
        (Area(0.5, 0.5, 0.5, 0.0, relative=True), Box(0, 5, 3, 5)),
        (Area(0.04, 0.04, 0.9, 0.5, relative=True), Box(3, 9, 1, 1)),  # at least one latent
        (Area(1000, 1000, 8, 8), Box(1, 1, 5, 9)),
    ],
)
def test_boxes_by_hand(area: Area, box: Box) -> None:
    assert area.box(*SIZE, 8) == box


@pytest.mark.parametrize("area", [Area(64, 64, 80, 0), Area(4, 64), Area(0.5, 0.5, 1.0, 0.0, relative=True)])
def test_an_area_without_a_latent_is_refused(area: Area) -> None:
    with pytest.raises(ExecutionError, match="outside"):
        area.box(*SIZE, 8)


def test_areas_fade_towards_borders_within_the_picture() -> None:
    """Over eight latents, or over a quarter of a smaller area; not towards the picture's own borders."""
    wide = area_weight(Box(0, 10, 4, 64), (64, 100), 2.0)
    eighths = torch.arange(1, 9) / 8
    torch.testing.assert_close(wide[0, :8], 2 * eighths)
    torch.testing.assert_close(wide[0, -8:], 2 * eighths.flip(0))
    assert wide[0, 8:-8].unique().tolist() == [2.0]
    torch.testing.assert_close(wide, wide[:1].expand(4, -1))  # a quarter of 4 is 1: at once
    low = area_weight(Box(8, 0, 12, 20), (20, 20), 1.0)
    torch.testing.assert_close(low[:, 0], torch.tensor([1 / 3, 2 / 3] + [1.0] * 10))


def test_conditions_hold_for_their_part_of_the_way() -> None:
    """From a quarter to three quarters of the timesteps: 999 * (1 - 0.25) and 999 * 0.25."""
    parts = of(Condition(level(1.0)), Condition(level(3.0), start=0.25, end=0.75))
    for sigma, mean in (
        (TABLE.sigma(749.2), 2.0),
        (TABLE.sigma(749.3), 1.0),
        (TABLE.sigma(249.8), 2.0),
        (0.03, 1.0),
    ):
        assert outputs([parts], sigma).unique().tolist() == [mean]
    late = of(Condition(level(1.0), end=0.5), Condition(level(3.0), start=0.5))
    assert outputs([late], TABLE.maximum).unique().tolist() == [1.0]
    assert outputs([late], TABLE.minimum).unique().tolist() == [3.0]
    assert TABLE.after(0.0) == math.inf
    assert TABLE.after(1.0) == 0.0


def test_the_other_side_is_given_the_areas_that_it_lacks() -> None:
    cat, dog, blur = (
        Condition(level(1.0)),
        Condition(level(2.0), strength=0.5, start=0.2),
        Condition(level(3.0)),
    )
    area = Area(32, 48)
    mine = placed(of(blur), SIZE, 8)
    other = placed(of(cat, Condition(dog.states, area=area, strength=0.5, start=0.2)), SIZE, 8)
    whole, added = with_opposites(mine, other)
    assert whole is mine[0]
    assert (added.box, added.condition.strength, added.condition.start) == (Box(0, 0, 6, 4), 0.5, 0.2)
    assert added.condition.states is blur.states
    assert len(with_opposites(other, mine)) == 2
    # One in the same area is enough; one in an area around it is closer than one for the whole.
    same = placed(of(blur, Condition(level(4.0), area=area)), SIZE, 8)
    assert len(with_opposites(same, other)) == 2
    around = placed(of(blur, Condition(level(5.0), area=Area(40, 48))), SIZE, 8)
    assert float(with_opposites(around, other)[-1].condition.states[0, 0]) == 5.0
    apart = placed(of(Condition(level(5.0), area=Area(16, 48, 64, 0))), SIZE, 8)
    assert len(with_opposites(apart, other)) == 1


def test_sizes_are_those_of_the_latents_unless_told() -> None:
    seen: list[NetworkConditions] = []

    def look(scaled: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
        seen.append(told)
        return scaled

    told = PictureSize(100, 200, 3, 4, 50, 60, 7.5)
    rows = [
        of(Condition(level(0.0))),
        of(Condition(level(0.0), size=told, guidance=2.0)),
        of(Condition(level(0.0))),
    ]
    placements = [placed(row, SIZE, 8) for row in rows]
    latents = torch.zeros(3, 1, *SIZE)
    ConditionBatch(placements, [False, False, True], SIZE, FORM)(
        look, latents, torch.tensor(0), 1.0, lambda: latents
    )
    (call,) = seen
    assert call.sizes.tolist() == [
        [48, 80, 0, 0, 48, 80, 6.0],
        [100, 200, 3, 4, 50, 60, 7.5],
        [48, 80, 0, 0, 48, 80, 2.5],
    ]
    assert call.guidance.tolist() == [3.5, 2.0, 3.5]
    assert call.pooled is None


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    area = None
    if draw(st.booleans()):
        x, y = draw(st.integers(0, 9)) * 8, draw(st.integers(0, 5)) * 8
        area = Area(draw(st.integers(1, 10)) * 8, draw(st.integers(1, 6)) * 8, x, y)
    start, end = sorted((draw(st.sampled_from([0.0, 0.3, 0.6])), draw(st.sampled_from([0.5, 0.8, 1.0]))))
    states = level(draw(st.floats(-2, 2)), draw(st.sampled_from([2, 4, 7])))
    strength = draw(st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    size = draw(st.sampled_from([None, PictureSize(64, 64)]))
    return Condition(states, None, size, draw(st.floats(0, 9)), area, strength, start, end)


def network(scaled: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
    """A network that looks at all it is told, at each row for itself."""
    numbers = told.states.mean((1, 2)) + told.guidance + 0.01 * told.sizes.sum(1)
    return scaled * 0.5 + numbers.view(-1, 1, 1, 1)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(2, 4), st.sampled_from([0.05, 1.0, 9.0]), st.booleans())
def test_rows_in_a_batch_are_as_they_are_alone(data: Any, n: int, sigma: float, joint_text: bool) -> None:
    """Whatever their conditions differ in, so none of it needs to be part of a group."""
    some = st.lists(conditions(), min_size=1, max_size=3).map(lambda parts: of(*parts))
    positive, negative = (data.draw(st.lists(some, min_size=n, max_size=n)) for _ in range(2))
    guidance = data.draw(st.lists(st.floats(2, 9), min_size=n, max_size=n))
    form = NetworkForm(TABLE, 8, joint_text)
    x = torch.randn(n, 2, *SIZE, generator=torch.Generator().manual_seed(n))
    together = Denoiser(network, form, "epsilon", positive, negative, guidance, SIZE)(x, sigma)
    for k in range(n):
        one = [positive[k]], [negative[k]], [guidance[k]]
        alone = Denoiser(network, form, "epsilon", *one, SIZE)(x[k : k + 1], sigma)
        torch.testing.assert_close(alone, together[k : k + 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow", "lcm"])
def test_where_nothing_holds_the_guess_is_nothing(prediction: Any) -> None:
    half = of(Condition(level(1.0), area=Area(40, 48)))
    x = torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    guess = Denoiser(levels, FORM, prediction, [half], [half], [3.0], SIZE)(x, 1.3)
    torch.testing.assert_close(guess[..., 5:], torch.zeros(1, 1, 6, 5), rtol=0, atol=1e-5)
    assert guess[..., :5].abs().min() > 0
