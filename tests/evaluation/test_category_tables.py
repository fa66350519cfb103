import math

import numpy as np
import pytest

from flowsmith.evaluation.category_tables import by_label, table_share
from flowsmith.evaluation.fairness import oracle_gap
from flowsmith.evaluation.variance_components import variance_components
from tests.evaluation.worlds import Array, world


def styled(
    seed: int, *, best: float = 1.5, noise: float = 0.6, interaction: float = 0.0
) -> tuple[Array, list[str]]:
    """Return a world in which flow i is better by ``best`` in the i-th of 4 styles, and the prompts' styles."""
    scores, _ = world(seed, noise=noise, interaction=interaction)
    style = [p % 4 for p in range(60)]
    scores[np.arange(60), style] += best
    return scores, [f"style {s}" for s in style]


def gap_of(scores: Array) -> float:
    return oracle_gap(scores, variance_components(scores), resamples=10).gap.mean


def test_a_label_that_decides_all_reaches_the_whole_gap() -> None:
    for seed in range(4):
        scores, style = styled(seed)
        gap = gap_of(scores)
        assert gap == pytest.approx(1.5 * 3 / 4, abs=0.25)
        # A little over 1: 15 prompts find a style's flow more surely than one prompt's two seeds do.
        assert table_share(scores, style, gap).share == pytest.approx(1.05, abs=0.08)


def test_a_label_decides_a_part() -> None:
    """Against the truth of a world without noise and with so many prompts that they do not choose for themselves."""
    shares = []
    for seed in range(8):
        scores, style = styled(seed, best=0.8, noise=0.3, interaction=0.5)
        shares.append(table_share(scores, style, gap_of(scores)).share)
    rng = np.random.default_rng(0)
    expected = rng.normal(0, 0.5, (40_000, 12))
    expected[:, 0] += 0.8  # by symmetry the first style is enough; a fixed flow gets 0.8 in one style of four
    truth = (0.8 - 0.2) / (expected.max(1).mean() - 0.2)
    assert 0.4 < truth < 0.8
    assert np.mean(shares) == pytest.approx(truth, abs=0.06)


def test_labels_that_decide_nothing_have_no_share() -> None:
    shares: dict[str, list[float]] = {"few": [], "pairs": []}
    for seed in range(20):
        scores, _ = world(seed, interaction=1.0, noise=0.5)
        gap, rng = gap_of(scores), np.random.default_rng(seed)
        few = table_share(scores, rng.integers(0, 5, 60).tolist(), gap)
        pairs = table_share(scores, [p // 2 for p in range(60)], gap)
        assert pairs.gain > 0.5 * gap  # each prompt is half of what chooses for it
        shares["few"].append(few.share)
        shares["pairs"].append(pairs.share)
    for found in shares.values():
        assert abs(np.mean(found)) < 3.5 * np.std(found) / np.sqrt(20)
        assert np.abs(found).max() < 0.5


def test_a_label_of_each_prompt_and_a_world_without_gap_cannot_be_judged() -> None:
    scores, _ = world(0, interaction=1.0)
    assert math.isnan(table_share(scores, range(60), gap_of(scores)).share)
    assert math.isnan(table_share(scores, ["a", "b"] * 30, -0.1).share)


def test_labels_that_prompts_lack_are_a_value() -> None:
    labels = {
        "a": {"style": "poster", "relation": "left"},
        "b": {"style": "poster"},
        "c": {"style": "poster", "relation": "above"},
    }
    assert by_label(["c", "a", "b"], labels) == {"relation": ["above", "left", None]}
