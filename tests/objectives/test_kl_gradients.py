"""Why estimators are refused in some places: their expected gradients, summed exactly over five words."""

import pytest
import torch
from torch import Tensor

from flowsmith.objectives.aggregation import Totals
from flowsmith.objectives.kl import KLEstimator, kl_estimate
from flowsmith.objectives.objective import Objective

DIRECTION = torch.tensor([0.7, -0.4, 0.1, 0.9, -0.6], dtype=torch.double)
LOGITS = torch.tensor([0.2, -0.5, 1.0, 0.0, 0.3], dtype=torch.double)


def policies(distance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, log-probabilities of the policy with their graph, and those of the reference."""
    logits = (LOGITS + distance * DIRECTION).requires_grad_()
    return logits, logits.log_softmax(0), LOGITS.log_softmax(0)


def divergence_gradient(distance: float) -> Tensor:
    logits, policy, reference = policies(distance)
    (gradient,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits)
    return gradient


def loss_gradient(estimator: KLEstimator, distance: float) -> Tensor:
    """Mean over samples of the estimate's own gradient."""
    logits, policy, reference = policies(distance)
    sampled = policy.detach().exp()
    loss = (sampled * kl_estimate(policy, reference, estimator)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    return gradient


def reward_gradient(estimator: KLEstimator, distance: float) -> Tensor:
    """Mean over samples of the estimate times the gradient of the sample's log-probability."""
    logits, policy, reference = policies(distance)
    sampled = policy.detach().exp()
    loss = (sampled * kl_estimate(policy, reference, estimator).detach() * policy).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    return gradient


@pytest.mark.parametrize("distance", [0.1, 1.0])
def test_k1_in_the_reward_and_k2_in_the_loss_are_exact(distance: float) -> None:
    exact = divergence_gradient(distance)
    torch.testing.assert_close(reward_gradient("k1", distance), exact)
    torch.testing.assert_close(loss_gradient("k2", distance), exact)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_weighed_by_the_ratio_they_are_exact_whoever_sampled(estimator: KLEstimator) -> None:
    logits, policy, reference = policies(1.0)
    sampled = torch.tensor([0.1, 0.3, 0.2, 0.1, 0.3], dtype=torch.double)  # neither policy nor reference
    one = torch.ones(1, 5, dtype=torch.bool)
    objective = Objective(kl=estimator, kl_correction=True, beta=1.0)
    losses = [
        objective(
            policy[word].view(1, 1), sampled[word].log().view(1, 1), torch.zeros(1).double(), one[:, :1],
            Totals(1, 1), reference[word].view(1, 1),
        )[0]
        for word in range(5)
    ]  # fmt: skip
    (gradient,) = torch.autograd.grad((sampled * torch.stack(losses)).sum(), logits)
    torch.testing.assert_close(gradient, divergence_gradient(1.0))


def test_k3_in_the_loss_is_exact_near_the_reference() -> None:
    near = (loss_gradient("k3", 0.01) - divergence_gradient(0.01)).norm() / divergence_gradient(0.01).norm()
    far = (loss_gradient("k3", 1.0) - divergence_gradient(1.0)).norm() / divergence_gradient(1.0).norm()
    assert near < 0.01 < 0.2 < far


@pytest.mark.parametrize("distance", [0.1, 1.0])
def test_k1_in_the_loss_pulls_nowhere(distance: float) -> None:
    assert loss_gradient("k1", distance).abs().max() < 1e-15


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_k2_and_k3_in_the_reward_hardly_pull_near_the_reference(estimator: KLEstimator) -> None:
    """The divergence's gradient falls with the distance, theirs with its square."""
    shares = [
        (reward_gradient(estimator, distance).norm() / divergence_gradient(distance).norm()).item()
        for distance in (0.1, 0.01)
    ]
    assert shares[0] < 0.1
    assert shares[1] == pytest.approx(shares[0] / 10, rel=0.1)
