import numpy as np
import pytest

from flowsmith.designers.best_fixed import shrunken_means


def test_golden_values() -> None:
    # Within: variance 2 in both groups; between: var(1, 5) = 8, less 2 x mean(1/2, 1/2) = 1: tau^2 = 7.
    # Weight 7 / (7 + 2 / 2) = 7/8 of the distance to the grand mean 3.
    assert shrunken_means([[0.0, 2.0], [4.0, 6.0]]) == pytest.approx([3 - 7 / 8 * 2, 3 + 7 / 8 * 2])


def test_a_lucky_single_row_does_not_win() -> None:
    rng = np.random.default_rng(0)
    groups = [list(rng.normal(mean, 1.0, 30)) for mean in np.linspace(0, 0.8, 9)]
    lucky = [1.6]
    means = shrunken_means([*groups, lucky])
    assert int(np.argmax([np.mean(g) for g in [*groups, lucky]])) == 9
    assert int(np.argmax(means)) == int(np.argmax([np.mean(g) for g in groups]))


def test_pure_noise_shrinks_to_the_grand_mean() -> None:
    assert shrunken_means([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]]) == pytest.approx([0.0, 0.0, 0.0])
