import math

import pytest
import torch

from flowsmith.rewards.calibration import ONE_SIGMA, coverage, fit_scale, held_out_coverage


def test_coverage_by_hand() -> None:
    mean, std = torch.tensor([0.0, 0, 0, 0]), torch.tensor([1.0, 1, 2, 2])
    assert coverage(mean, std, torch.tensor([1.0, 1.5, 1.5, -3])) == 0.5


def test_scale_by_hand() -> None:
    # Ratios 1..9; (9 + 1) * 0.6827 -> the 7th smallest.
    truth = torch.arange(1.0, 10.0)
    assert fit_scale(torch.zeros(9), torch.ones(9), truth.flip(0)) == 7
    assert fit_scale(torch.zeros(9), 2 * torch.ones(9), truth) == 3.5


@pytest.mark.parametrize("shape", ["normal", "heavy"])
def test_scale_finds_the_missing_factor(shape: str) -> None:
    generator = torch.Generator().manual_seed(0)
    disagreement = 0.1 + torch.rand(6000, generator=generator)
    noise = torch.randn(6000, generator=generator)
    if shape == "heavy":
        noise = noise / torch.rand(6000, generator=generator).clamp(min=0.05)
    truth = 3 * disagreement * noise
    fit, test = slice(0, 3000), slice(3000, 6000)
    zero = torch.zeros(3000)
    scale = fit_scale(zero, disagreement[fit], truth[fit])
    assert coverage(zero, scale * disagreement[test], truth[test]) == pytest.approx(ONE_SIGMA, abs=0.03)
    if shape == "normal":
        assert scale == pytest.approx(3, rel=0.06)


def test_held_out_coverage_tells_good_doubt_from_bad() -> None:
    generator = torch.Generator().manual_seed(1)
    ids = [f"p{i // 10}" for i in range(4000)]
    hard = torch.tensor([int(i[1:]) % 2 for i in ids], dtype=torch.float32)
    true_std = 0.1 + 2 * hard
    truth = true_std * torch.randn(4000, generator=generator)
    zero = torch.zeros(4000)
    assert held_out_coverage(zero, true_std, truth, ids) == pytest.approx(ONE_SIGMA, abs=0.04)
    # Doubt that is the same everywhere reaches the average by covering the easy and missing the hard.
    constant = fit_scale(zero, torch.ones(4000), truth) * torch.ones(4000)
    assert coverage(zero[hard == 1], constant[hard == 1], truth[hard == 1]) < 0.5


def test_one_prompt_has_no_held_out_half() -> None:
    assert math.isnan(held_out_coverage(torch.zeros(3), torch.ones(3), torch.ones(3), ["a"] * 3))


def test_members_that_agree_exactly_do_not_divide_by_zero() -> None:
    assert math.isfinite(fit_scale(torch.zeros(3), torch.zeros(3), torch.ones(3)))
