"""The measures on simulated worlds whose answer is known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from flowsmith.evaluation.cross_fitting import CrossFittingError, halves
from flowsmith.evaluation.fairness import best_probabilities, looks_best, noise_ceiling, oracle_gap
from flowsmith.evaluation.variance_components import VarianceError, variance_components
from tests.evaluation.worlds import Array, world

LARGEST_OF_12 = 1.6292  # expected maximum of 12 standard normal values


def gap_of(scores: Array) -> tuple[float, float, float, float, float]:
    """Return gap, its ends, the shrunken choice's gap, and the naive one."""
    found = oracle_gap(scores, variance_components(scores), resamples=400)
    return found.gap.mean, found.gap.low, found.gap.high, found.shrunken.mean, found.naive


def test_four_seeds_are_halved_in_six_ways() -> None:
    found = halves(4)
    assert len(found) == 6
    assert ([0, 1], [2, 3]) in found
    assert ([2, 3], [0, 1]) in found
    for seeds in (1, 3):
        with pytest.raises(CrossFittingError, match=f"seeds={seeds}: .* render an even number"):
            halves(seeds)


def test_noise_has_no_gap_and_a_large_naive_one() -> None:
    worlds = np.array([gap_of(world(seed)[0]) for seed in range(40)])
    gap, low, high, shrunken, naive = worlds.T
    assert abs(gap.mean()) < 3 * gap.std() / np.sqrt(40)
    assert abs(gap.mean()) < 0.03
    assert ((low <= 0) & (high >= 0)).mean() >= 0.95
    assert (low > 0).mean() <= 0.025
    assert np.abs(shrunken).max() < 0.15
    # 12 means over 4 seeds of noise 1: half of the largest of 12 standard normal values.
    assert naive.min() > 0.5 * LARGEST_OF_12 - 0.2


def test_better_flows_without_interaction_are_no_gap() -> None:
    worlds = np.array([gap_of(world(seed, flow=0.4)[0]) for seed in range(20)])
    gap, low, _, shrunken, naive = worlds.T
    assert gap.mean() < -0.1  # a choice by luck loses to the best flow
    assert low.max() < 0
    assert np.abs(shrunken).max() < 0.1  # a shrunken choice finds it everywhere
    assert naive.mean() > 0.2


def test_the_gap_of_a_known_interaction() -> None:
    """Of F equal flows i^2 / sqrt(i^2 + n^2 / 2) x E(largest of F) for each prompt's, 1 / sqrt(P) of it for a fixed."""
    for interaction, noise in ((1.0, 0.2), (0.5, 1.0)):
        reached = interaction**2 / np.sqrt(interaction**2 + noise**2 / 2) * LARGEST_OF_12 * (1 - 60**-0.5)
        found = np.array([gap_of(world(s, interaction=interaction, noise=noise)[0]) for s in range(20)])
        assert found[:, 0].mean() == pytest.approx(reached, rel=0.04)
        assert ((found[:, 1] <= reached) & (reached <= found[:, 2])).mean() >= 0.9
        assert found[:, 1].min() > 0
        if noise == 0.2:  # hardly any noise: what the oracle that knows all expected scores gains
            truth = [world(s, interaction=interaction, noise=noise)[1] for s in range(20)]
            oracle = np.mean([t.max(1).mean() - t.mean(0).max() for t in truth])
            assert found[:, 0].mean() == pytest.approx(oracle, rel=0.05)


def test_variance_components_are_recovered() -> None:
    scores, _ = world(3, (200, 80, 4), prompt=0.8, flow=0.6, interaction=0.5, common=0.4, noise=0.9)
    found = variance_components(scores)
    assert found.prompt == pytest.approx(0.8**2, rel=0.25)
    assert found.flow == pytest.approx(0.6**2, rel=0.4)
    assert found.interaction == pytest.approx(0.5**2, rel=0.05)
    assert found.seed_main == pytest.approx(0.4**2, rel=0.15)
    assert found.seed_residual == pytest.approx(0.9**2, rel=0.03)
    assert found.seed == found.seed_main + found.seed_residual


def test_variance_components_are_unbiased_and_may_be_negative() -> None:
    found = [variance_components(world(seed, prompt=0, common=0)[0]) for seed in range(200)]
    for name in ("prompt", "flow", "interaction", "seed_main"):
        values = np.array([getattr(v, name) for v in found])
        assert values.min() < 0
        assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(200)
    assert found[0].shrinkage(4) == pytest.approx(max(0, found[0].interaction) / (
        max(0, found[0].interaction) + found[0].seed_residual / 4
    ))  # fmt: skip
    with pytest.raises(VarianceError, match="a block of 1 prompts"):
        variance_components(np.zeros((1, 3, 4)))


def share_of(scores: Array) -> float:
    return float(best_probabilities(scores, variance_components(scores)).mean(0).max())


def test_a_flow_that_is_best_everywhere_is_so_behind_noise() -> None:
    for seed in range(5):
        scores, _ = world(seed, noise=2.0)
        scores[:, 7] += 0.8
        assert looks_best(scores.mean(2)).mean(0).max() < 0.6  # noise spreads the winners
        assert share_of(scores) > 0.75


def test_shares_of_a_world_with_interaction() -> None:
    claimed, true = [], []
    for seed in range(10):
        scores, expected = world(seed, interaction=0.8, noise=0.8)
        probabilities, truth = best_probabilities(scores, variance_components(scores)), looks_best(expected)
        np.testing.assert_allclose(probabilities.sum(1), 1)
        np.testing.assert_allclose(probabilities.mean(0), truth.mean(0), atol=0.12)
        claimed.append(probabilities.ravel())
        true.append(truth.ravel())
    # Calibrated: of the cells of which it is said with probability x, a share of x is the best.
    probability, best = np.concatenate(claimed), np.concatenate(true)
    for low, high in ((0, 0.05), (0.05, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.01)):
        said = (probability >= low) & (probability < high)
        assert best[said].mean() == pytest.approx(probability[said].mean(), abs=0.08)


def test_probabilities_of_two_flows_are_the_normal_distributions() -> None:
    scores, _ = world(1, (80, 2, 4), interaction=0.7)
    variance = variance_components(scores)
    weight = variance.shrinkage(4)
    cell = scores.mean(2)
    flow = cell.mean(0) - cell.mean()
    expected = flow + weight * (cell - cell.mean(1, keepdims=True) - flow)
    doubt = np.sqrt(weight * variance.seed_residual / 4)
    rng = np.random.default_rng(0)
    draws = expected[:, :, None] + doubt * rng.normal(size=(80, 2, 20_000))
    drawn = (draws[:, 0] > draws[:, 1]).mean(1)
    np.testing.assert_allclose(best_probabilities(scores, variance)[:, 0], drawn, atol=0.02)


def test_equal_flows_share_being_best() -> None:
    found = looks_best(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]))
    assert found.tolist() == [[0.5, 0.5, 0], [0, 1, 0]]


def test_the_ceiling_is_what_the_truth_itself_reaches() -> None:
    for noise in (0.3, 1.5):
        scores, expected = world(5, (150, 30, 4), interaction=0.5, noise=noise)
        found = noise_ceiling(scores)
        for seeds, ceiling in ((4, found.means), (1, found.single)):
            means = scores[:, :, :seeds].mean(2)
            reached = np.mean([spearmanr(a, b)[0] for a, b in zip(expected, means, strict=True)])
            assert ceiling == pytest.approx(reached, abs=0.02)
        assert found.halves < found.reliability < found.means
        assert found.single < found.means
    assert noise_ceiling(world(0)[0]).means < 0.25


def test_order_of_prompts_flows_and_seeds_changes_nothing() -> None:
    scores, _ = world(2, interaction=0.5)
    rng = np.random.default_rng(0)
    other = scores[rng.permutation(60)][:, rng.permutation(12)][:, :, [2, 0, 3, 1]]
    a, b = variance_components(scores), variance_components(other)
    assert a.interaction == pytest.approx(b.interaction)
    assert share_of(scores) == pytest.approx(share_of(other))
    assert noise_ceiling(scores).means == pytest.approx(noise_ceiling(other).means)
    first, second = gap_of(scores), gap_of(other)
    assert first[0] == pytest.approx(second[0])
    assert first[3:] == pytest.approx(second[3:])
