"""How far the sampler is from the trainer: golden values, and an independent estimate."""

import math

import pytest
import torch

from flowsmith.policy.mismatch import correction_weights, mismatch, weight_metrics

TRAINED = torch.log(torch.tensor([[0.5, 0.2, 0.9], [0.4, 0.7, 0.3]], dtype=torch.double))
SAMPLED = torch.log(torch.tensor([[0.25, 0.4, 0.9], [0.4, 0.1, 0.3]], dtype=torch.double))
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_by_hand() -> None:
    metrics, largest = mismatch(TRAINED, SAMPLED, MASK)
    # Ratios 2, 1/2, 1: k3 = r - 1 - log r; the factor 7 is masked.
    expected = (2 - 1 - math.log(2)) + (0.5 - 1 + math.log(2)) + 0.0
    assert metrics["sampling/kl"][0].item() == pytest.approx(expected)
    assert metrics["sampling/kl"][1].item() == 3
    assert metrics["sampling/sampling_logp_difference/mean"][0].item() == pytest.approx(2 * math.log(2))
    assert largest.item() == pytest.approx(math.log(2))


def test_it_estimates_the_divergence_of_the_sampler_from_the_trainer() -> None:
    """Against the exact KL of two categorical distributions, from a hundred thousand draws of the sampler."""
    sampler, trainer = torch.randn(
        2, 20, dtype=torch.double, generator=torch.Generator().manual_seed(0)
    ).log_softmax(1)
    exact = (sampler.exp() * (sampler - trainer)).sum().item()
    drawn = torch.multinomial(
        sampler.exp(), 100_000, replacement=True, generator=torch.Generator().manual_seed(1)
    )
    metrics, _ = mismatch(
        trainer[drawn][None], sampler[drawn][None], torch.ones(1, 100_000, dtype=torch.bool)
    )
    total, count = metrics["sampling/kl"]
    assert (total / count).item() == pytest.approx(exact, rel=0.03)


def test_weights_by_hand() -> None:
    token = correction_weights(TRAINED, SAMPLED, MASK, "token", cap=1.5)
    torch.testing.assert_close(token, torch.tensor([[1.5, 0.5, 1.0], [1.0, 1.0, 1.0]], dtype=torch.double))
    sequence = correction_weights(TRAINED, SAMPLED, MASK, "sequence", cap=1.5)
    torch.testing.assert_close(sequence, torch.tensor([[1.0], [1.0]], dtype=torch.double))
    assert [
        value.item() for value in weight_metrics(token, MASK)["sampling/importance_sampling_ratio/mean"]
    ] == [3, 3]
    of_sequences = weight_metrics(sequence, MASK)["sampling/importance_sampling_ratio/mean"]
    assert [value.item() for value in of_sequences] == [pytest.approx(2), 2]
