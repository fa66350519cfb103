import numpy as np
import pytest

from flowsmith.evaluation.component_effects import ComponentError, component_effect, gain_of
from tests.evaluation.worlds import Array


def changes(
    seed: int, number: int = 1, *, noise: float = 1.4, effect: float = 0.0, same: float = 0.0
) -> Array:
    """Return changes [number, 60, 4] whose effect varies over prompts by ``effect`` around ``same``."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, noise, (number, 60, 4)) + rng.normal(0, effect, (number, 60, 1)) + same


def test_noise_has_no_effect_and_its_interval_says_so() -> None:
    found = [component_effect(changes(seed), resamples=200, seed=seed) for seed in range(200)]
    varies = np.array([(e.varies.mean, e.varies.low, e.varies.high) for e in found])
    gain = np.array([(e.gain.mean, e.gain.low, e.gain.high) for e in found])
    # Nothing is chosen but the prompts: 95 % of the intervals hold 0, give or take 3 binomial deviations.
    covered = ((varies[:, 1] <= 0) & (varies[:, 2] >= 0)).mean()
    assert covered == pytest.approx(0.95, abs=0.047)
    assert (varies[:, 1] > 0).mean() <= 0.06
    # The direction is chosen too, and chosen again in each resample.
    assert ((gain[:, 1] <= 0) & (gain[:, 2] >= 0)).mean() >= 0.93
    for values in (varies[:, 0], gain[:, 0]):
        assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(200)


def test_the_best_of_many_changes_gains_nothing_on_noise() -> None:
    found = [component_effect(changes(seed, 6), resamples=100, seed=seed) for seed in range(40)]
    values = np.array([e.gain.mean for e in found])
    assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(40)
    assert sum(e.gain.low > 0 for e in found) <= 2


def test_the_effect_on_some_prompts_is_found() -> None:
    """A third of the prompts gains 1.5, a third loses 1.5."""
    truth = np.repeat([1.5, 0.0, -1.5], 20)[None, :, None]
    found = component_effect(changes(0, 4, noise=0.5) + np.eye(4)[2][:, None, None] * truth, resamples=300)
    assert found.change == 2
    assert found.gain.low > 1
    assert found.gain.mean == pytest.approx(1.5, abs=0.2)
    assert found.varies.mean == pytest.approx(3, abs=0.3)
    assert found.varies.low < found.varies.mean < found.varies.high


def test_a_change_that_does_the_same_everywhere_does_not_vary() -> None:
    found = component_effect(changes(1, noise=0.5, same=-1.0), resamples=300)
    assert not found.forward
    assert found.gain.mean == pytest.approx(1, abs=0.2)
    assert found.gain.low > 0.5
    assert found.varies.low < 0 < found.varies.high
    assert gain_of(changes(1, noise=0.5, same=-1.0)[0]) == pytest.approx(-1, abs=0.2)


def test_a_known_effect_is_estimated_without_luck() -> None:
    """Of normal effects e behind noise n the best third by means of 2 seeds has e^2 / sqrt(e^2 + n^2 / 2) x 1.09."""
    rng = np.random.default_rng(0)
    best = np.sort(rng.normal(size=(4000, 60)), axis=1)[:, -20:].mean()
    found = [gain_of(changes(seed, effect=1.0, noise=1.0)[0]) for seed in range(60)]
    assert np.mean(found) == pytest.approx(best / np.sqrt(1.5), rel=0.06)


def test_two_seeds_are_too_few() -> None:
    with pytest.raises(ComponentError, match=r"seeds=2: .* render 4"):
        component_effect(np.zeros((1, 9, 2)))
