"""What must hold for every objective: parts add up, order is nothing, and neither is what stands at masked places."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsmith.objectives.advantages import AdvantageKind, advantages
from flowsmith.objectives.aggregation import Totals
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.presets import PRESETS, Preset, objective
from tests.objectives.batch import LENGTH, Batch, gradient, loss_of, random_batch, random_policy

NAMES: list[Preset] = list(get_args(Preset))


def everything(preset: Preset) -> Objective:
    """Return a preset with every term that it admits."""
    published = PRESETS[preset]
    return replace(
        published,
        beta=0.1,
        entropy_bonus=0.05,
        top_entropy=1.0 if published.ratio == "sequence" else 0.7,
    )


def totals(batch: Batch, micro_batches: int = 1) -> Totals:
    return Totals.of(batch.mask, LENGTH, micro_batches)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("build", [PRESETS.__getitem__, everything], ids=["published", "everything"])
@pytest.mark.parametrize("preset", [name for name in NAMES if name != "bnpo"])
def test_micro_batches_add_up_to_the_gradient_of_the_whole(
    preset: Preset, build: Callable[[Preset], Objective], size: int
) -> None:
    batch, loss = random_batch(), build(preset)
    whole = gradient(loss, batch, 8, totals(batch))
    assert whole.abs().max() > 1e-3
    parts = gradient(loss, batch, size, totals(batch))
    torch.testing.assert_close(parts, whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_bnpo_is_the_mean_of_its_micro_batches_token_means(size: int) -> None:
    batch, bnpo = random_batch(), PRESETS["bnpo"]
    parts = [batch.rows(rows) for rows in torch.arange(8).split(size)]
    ours = gradient(bnpo, batch, size, totals(batch, 8 // size))
    token_mean = replace(bnpo, aggregation="token_mean")
    means = [gradient(token_mean, part, size, totals(part)) for part in parts]
    torch.testing.assert_close(ours, torch.stack(means).mean(0), atol=1e-12, rtol=0)
    if size == 2:
        assert (ours - gradient(bnpo, batch, 8, totals(batch))).abs().max() > 1e-3


@pytest.mark.parametrize("preset", NAMES)
def test_metrics_of_parts_add_up(preset: Preset) -> None:
    batch, policy = random_batch(), random_policy()
    whole = loss_of(everything(preset), policy, batch, totals(batch))[1]
    parts = [
        loss_of(everything(preset), policy, batch.rows(rows), totals(batch))[1]
        for rows in torch.arange(8).split(3)
    ]
    for name, pair in whole.items():
        for index in (0, 1):
            torch.testing.assert_close(torch.stack([part[name][index] for part in parts]).sum(), pair[index])


@given(
    preset=st.sampled_from(NAMES),
    order=st.permutations(range(4)),
    rewards=st.lists(st.floats(-2, 2).map(lambda x: round(x, 3)), min_size=8, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_permuting_a_group_changes_nothing(preset: Preset, order: list[int], rewards: list[float]) -> None:
    batch, loss = random_batch(), everything(preset)
    groups = torch.tensor(rewards, dtype=torch.double).view(2, 4)
    rows = torch.tensor([*order, 4, 5, 6, 7])
    kind, epsilon = loss.advantage, loss.advantage_epsilon
    batch.advantages = advantages(groups, kind, epsilon).flatten()
    permuted = batch.rows(rows)
    permuted.advantages = advantages(groups.flatten()[rows].view(2, 4), kind, epsilon).flatten()
    torch.testing.assert_close(
        gradient(loss, permuted, 8, totals(batch)), gradient(loss, batch, 8, totals(batch)), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("kind", get_args(AdvantageKind))
@pytest.mark.parametrize("preset", NAMES)
def test_group_without_variance_has_exactly_no_gradient(preset: Preset, kind: AdvantageKind) -> None:
    batch = random_batch()
    varied = torch.linspace(0, 1, 4, dtype=torch.double)
    groups = torch.stack([torch.full((4,), 0.1, dtype=torch.double), varied])
    batch.advantages = advantages(groups, kind).flatten()
    published = objective(preset, {"beta": 0.0, "advantage": kind})
    flat, other = batch.rows(torch.arange(4)), batch.rows(torch.arange(4, 8))
    assert (gradient(published, flat, 4, totals(batch)) == 0).all()
    assert (gradient(published, other, 4, totals(batch)) != 0).any()


@pytest.mark.parametrize("masked", [-50.0, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("preset", NAMES)
def test_what_stands_at_masked_places_counts_nowhere(preset: Preset, masked: float) -> None:
    batch, loss = random_batch(), everything(preset)
    assert torch.equal(
        gradient(loss, batch, 8, totals(batch), masked), gradient(loss, batch, 8, totals(batch))
    )
    with torch.no_grad():
        before = loss_of(loss, random_policy(), batch, totals(batch))
        after = loss_of(loss, random_policy(), batch, totals(batch), masked)
    assert after == before


@pytest.mark.parametrize("preset", NAMES)
def test_masked_places_may_be_many(preset: Preset) -> None:
    """More forced tokens, and more sequences that have nothing else, change neither loss nor any count."""
    batch, loss = random_batch(), everything(preset)
    longer = Batch(
        *(
            torch.nn.functional.pad(part, (0, 3, 0, 2) if part.ndim == 2 else (0, 2))
            for part in vars(batch).values()
        )
    )
    before = loss_of(loss, random_policy(), batch, totals(batch))
    after = loss_of(loss, random_policy(), longer, totals(longer))
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("preset", NAMES)
def test_a_batch_of_forced_tokens_alone_is_zero(preset: Preset) -> None:
    batch = random_batch()
    batch.mask = torch.zeros_like(batch.mask)
    batch.policy_mask = batch.mask
    policy = random_policy()
    loss, metrics = loss_of(everything(preset), policy, batch, totals(batch))
    loss.backward()
    assert loss == 0
    assert policy.grad is not None
    assert (policy.grad == 0).all()
    assert all(value == count == 0 for value, count in metrics.values())


@pytest.mark.parametrize("preset", NAMES)
def test_first_update_is_the_policy_gradient(preset: Preset) -> None:
    """At ratio 1, whatever the surrogate, the gradient is that of -A log pi, weighted by the aggregation."""
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(6, 5, dtype=torch.double, generator=generator)
    mask = torch.rand(6, 5, generator=generator) < 0.6
    mask[:, 0] = True
    merits = torch.arange(6, dtype=torch.double) - 2.5
    x = old.clone().requires_grad_()
    published = objective(preset, {"beta": 0.0})
    loss, metrics = published(x, old, merits, mask, Totals.of(mask, length=5))
    loss.backward()
    weight = {
        "sample_mean": 1 / (mask.sum(1, keepdim=True) * 6.0),
        "token_mean": 1 / mask.sum(),
        "batch_token_mean": 1 / mask.sum(),
        "constant": torch.tensor(1 / 30),
    }[published.aggregation]
    torch.testing.assert_close(x.grad, -merits[:, None] * mask * weight.double())
    assert metrics["ratio_mean"][0] == metrics["ratio_mean"][1]
    assert all(value == 0 for name, (value, _) in metrics.items() if name.startswith("clip_ratio"))
