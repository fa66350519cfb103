import math

import pytest
import torch

from flowsmith.rewards.bootstrap import bootstrap_weights, poisson_one, unit_interval


def test_poisson_by_hand() -> None:
    e = math.exp(-1)
    assert [poisson_one(u) for u in (0.0, e - 1e-9, e, 2 * e, 2.5 * e, 1 - 1e-12)][:5] == [0, 0, 1, 2, 3]
    assert poisson_one(1 - 1e-9) < 16


def test_golden_hash() -> None:
    # A draw that moved between versions or machines would give a restarted run other members.
    assert unit_interval(0, "p1") == pytest.approx(0.2580158410127726, abs=1e-15)
    assert unit_interval("a", "b") != unit_interval("ab")


def test_rows_of_a_prompt_stay_together_in_any_batch() -> None:
    ids = [f"p{i % 7}" for i in range(30)]
    whole = bootstrap_weights(ids, 5, seed=3)
    assert whole.shape == (5, 30)
    assert torch.equal(whole[:, 0], whole[:, 7])
    assert torch.equal(bootstrap_weights(ids[11:14], 5, seed=3), whole[:, 11:14])


def test_distribution_and_independence_of_members() -> None:
    weights = bootstrap_weights([f"p{i}" for i in range(4000)], 3, seed=0)
    assert float(weights.mean()) == pytest.approx(1, abs=0.03)
    assert float(weights.var()) == pytest.approx(1, abs=0.06)
    assert float((weights == 0).double().mean()) == pytest.approx(math.exp(-1), abs=0.015)
    correlations = torch.corrcoef(weights) - torch.eye(3)
    assert float(correlations.abs().max()) < 0.05


def test_other_seed_other_sample() -> None:
    ids = [f"p{i}" for i in range(200)]
    same = (bootstrap_weights(ids, 1, seed=0) == bootstrap_weights(ids, 1, seed=1)).double().mean()
    assert float(same) < 0.5  # two Poisson(1) draws agree with probability 0.31
