import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.evaluation.statistics import StatisticsError, mean_interval, paired_difference, win_rate


def simulated(rng: np.random.Generator, prompts: int, seeds: int) -> dict[str, list[float]]:
    """Prompts of different difficulty (sd 1, skewed) and seeds around them (sd 1); the true mean is 0."""
    difficulty = rng.exponential(size=prompts) - 1
    return {f"p{i}": list(difficulty[i] + rng.normal(size=seeds)) for i in range(prompts)}


def test_mean_is_over_prompts_not_samples() -> None:
    interval = mean_interval({"a": [1.0], "b": [3.0, 3.0, 3.0]})
    assert interval.mean == 2.0  # the mean over samples would be 2.5
    assert interval.prompts == 2


def test_interval_of_two_prompts_by_hand() -> None:
    # Resampled means are 1, 2, 3 with probabilities 1/4, 1/2, 1/4; the ends are 2 +- 1 widened by sqrt(2).
    interval = mean_interval({"a": [1.0], "b": [3.0]})
    assert interval.low == pytest.approx(2 - 2**0.5)
    assert interval.high == pytest.approx(2 + 2**0.5)


def test_covers_the_true_mean_in_95_percent_of_worlds() -> None:
    rng = np.random.default_rng(0)
    worlds = 600
    covered = 0
    for world in range(worlds):
        interval = mean_interval(simulated(rng, 40, 4), resamples=500, seed=world)
        covered += interval.low <= 0 <= interval.high
    # 0.95 less the loss to skewness, +- 2.6 standard errors; counting seeds as independent covers about 0.8.
    assert 0.92 <= covered / worlds <= 0.975


def test_seeds_taken_as_prompts_cover_too_little() -> None:
    """The mistake that the unit of resampling avoids is large enough for the test above to see it."""
    rng = np.random.default_rng(0)
    covered = 0
    for world in range(300):
        values = [v for column in simulated(rng, 40, 4).values() for v in column]
        interval = mean_interval({str(i): [v] for i, v in enumerate(values)}, resamples=500, seed=world)
        covered += interval.low <= 0 <= interval.high
    assert covered / 300 < 0.9


def test_pairing_removes_what_prompts_share() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(scale=10, size=50)
    a = {str(i): [base[i] + 0.5 + rng.normal(scale=0.1)] for i in range(50)}
    b = {str(i): [base[i] + rng.normal(scale=0.1)] for i in range(50)}
    difference = paired_difference(a, b)
    assert difference.low > 0.4
    assert difference.high < 0.6
    alone = mean_interval(a)
    assert alone.high - alone.low > 3


def test_paired_difference_covers() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for world in range(400):
        shared = rng.normal(scale=3, size=30)
        a = {str(i): list(shared[i] + 0.3 + rng.normal(size=2)) for i in range(30)}
        b = {str(i): list(shared[i] + rng.normal(size=2)) for i in range(30)}
        interval = paired_difference(a, b, resamples=500, seed=world)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


def test_win_rate_by_hand() -> None:
    a = {"x": [1.0, 2.0], "y": [0.0]}
    b = {"x": [1.0, 0.0], "y": [5.0]}
    # x: 1-1 tie, 1-0 win, 2-1 win, 2-0 win -> 3.5 / 4; y: lost.
    assert win_rate(a, b).mean == pytest.approx((3.5 / 4 + 0) / 2)


values = st.lists(st.floats(-5, 5), min_size=1, max_size=4)
pairs = st.dictionaries(st.text(max_size=4), st.tuples(values, values), min_size=2, max_size=8)


@given(pairs)
def test_win_rates_mirror_and_stay_in_bounds(samples: dict[str, tuple[list[float], list[float]]]) -> None:
    a = {prompt: pair[0] for prompt, pair in samples.items()}
    b = {prompt: pair[1] for prompt, pair in samples.items()}
    there, back = win_rate(a, b, resamples=50), win_rate(b, a, resamples=50)
    assert there.mean + back.mean == pytest.approx(1)
    assert 0 <= there.low <= there.mean <= there.high <= 1


@given(pairs)
def test_order_of_prompts_does_not_matter(samples: dict[str, tuple[list[float], list[float]]]) -> None:
    column = {prompt: pair[0] for prompt, pair in samples.items()}
    backwards = dict(reversed(list(column.items())))
    assert mean_interval(column, resamples=50) == mean_interval(backwards, resamples=50)


def test_one_prompt_has_no_interval_and_is_still_json() -> None:
    record = json.loads(json.dumps(mean_interval({"a": [1.0, 2.0]}).to_json(), allow_nan=False))
    assert record == {"mean": 1.5, "ci95": [None, None]}


def test_to_json_holds_the_ends() -> None:
    interval = mean_interval({"a": [1.0], "b": [3.0]})
    assert interval.to_json() == {"mean": 2.0, "ci95": [interval.low, interval.high]}


@pytest.mark.parametrize("samples", [{}, {"a": []}, {"a": [float("nan")]}, {"a": [1.0], "b": [float("inf")]}])
def test_refuses_what_has_no_mean(samples: dict[str, list[float]]) -> None:
    with pytest.raises(StatisticsError):
        mean_interval(samples)


def test_refuses_unpaired_prompts() -> None:
    with pytest.raises(StatisticsError, match=r"2 prompts .* 'b'"):
        paired_difference({"a": [1.0], "b": [1.0]}, {"a": [1.0], "c": [1.0]})
    with pytest.raises(StatisticsError, match="one side only"):
        win_rate({"a": [1.0], "b": [1.0]}, {"a": [1.0]})
