"""Every surrogate x aggregation x side of the clipping, loss and gradient by hand.

A good sequence (A = 2) has ratios below, within and above the bounds 0.8 and 1.3; a bad one (A = -1) the same
and one far above. Every token had probability 0.2, so a ratio of 2 means a probability of 0.4.
"""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from flowsmith.objectives.aggregation import Aggregation, Totals
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.surrogate import SurrogateKind

GOOD, BAD = 2.0, -1.0
SIDES = [(GOOD, 0.5), (GOOD, 1.0), (GOOD, 2.0), (BAD, 0.5), (BAD, 1.0), (BAD, 2.0), (BAD, 4.0)]

# One line a side: loss, its derivative by log pi, and what was clipped.
GOLDEN: dict[SurrogateKind, list[tuple[float, float, str]]] = {
    # -min(r A, clip(r) A); by log pi: -r A, or 0 where clipped.
    "clip": [
        (-1.0, -1.0, ""),  # min(0.5 x 2, 0.8 x 2) = 1
        (-2.0, -2.0, ""),
        (-2.6, 0.0, "high"),  # min(2 x 2, 1.3 x 2) = 2.6
        (0.8, 0.0, "low"),  # min(-0.5, -0.8) = -0.8
        (1.0, 1.0, ""),
        (2.0, 2.0, ""),  # min(-2, -1.3) = -2
        (4.0, 4.0, ""),  # min(-4, -1.3) = -4
    ],
    # The same, but for max(-4, 3 x -1) = -3 at the end.
    "dual_clip": [
        (-1.0, -1.0, ""),
        (-2.0, -2.0, ""),
        (-2.6, 0.0, "high"),
        (0.8, 0.0, "low"),
        (1.0, 1.0, ""),
        (2.0, 2.0, ""),
        (3.0, 0.0, "dual"),
    ],
    # -w A log pi with w = clip(r); by log pi: -w A everywhere.
    "cispo": [
        (3.684136, -1.6, "low"),  # -0.8 x 2 x log 0.1 = 1.6 x 2.302585
        (3.218876, -2.0, ""),  # -1 x 2 x log 0.2 = 2 x 1.609438
        (2.382356, -2.6, "high"),  # -1.3 x 2 x log 0.4 = 2.6 x 0.916291
        (-1.842068, 0.8, "low"),  # 0.8 x log 0.1
        (-1.609438, 1.0, ""),  # log 0.2
        (-1.191178, 1.3, "high"),  # 1.3 x log 0.4
        (-0.290087, 1.3, "high"),  # 1.3 x log 0.8 = -1.3 x 0.223144
    ],
    # -(4 / t) s A with s = sigmoid(t (r - 1)), t = 1 for good and 2 for bad; by log pi: -4 s (1 - s) r A.
    "sapo": [
        (-3.020325, -0.940015, ""),  # s = 0.377541: 4 s 2, 4 x 0.235004 x 0.5 x 2
        (-4.0, -2.0, ""),  # s = 0.5
        (-5.848469, -3.145791, ""),  # s = 0.731059: 8 s, 4 x 0.196612 x 2 x 2
        (0.537883, 0.393224, ""),  # s = 0.268941: 2 s, 4 x 0.196612 x 0.5
        (1.0, 1.0, ""),  # s = 0.5
        (1.761594, 0.839949, ""),  # s = 0.880797: 2 s, 4 x 0.104994 x 2
        (1.995055, 0.039464, ""),  # s = 0.997527: 2 s, 4 x 0.002467 x 4
    ],
}
# A token's share of the loss of both sequences together: the good one has 3 chosen tokens, the bad one 4; the
# token budget is 10, and the batch is the first of two micro-batches.
WEIGHTS: dict[Aggregation, tuple[float, float]] = {
    "sample_mean": (1 / (2 * 3), 1 / (2 * 4)),
    "token_mean": (1 / 7, 1 / 7),
    "batch_token_mean": (1 / (7 * 2), 1 / (7 * 2)),
    "constant": (1 / (2 * 10), 1 / (2 * 10)),
}
# The same where the token is alone in its micro-batch, one of two.
ALONE: dict[Aggregation, float] = {
    "sample_mean": 1 / 2,
    "token_mean": 1 / 7,
    "batch_token_mean": 1 / 2,
    "constant": 1 / (2 * 10),
}
TOTALS = Totals(sequences=2, tokens=7, length=10, micro_batches=2)


def objective(surrogate: SurrogateKind, aggregation: Aggregation) -> Objective:
    if surrogate == "sapo":
        return Objective(
            surrogate=surrogate, aggregation=aggregation, temperature_positive=1.0, temperature_negative=2.0
        )
    return Objective(surrogate=surrogate, aggregation=aggregation, epsilon_low=0.2, epsilon_high=0.3)


def log(*values: float) -> Tensor:
    return torch.tensor([math.log(value) for value in values], dtype=torch.double)


@pytest.mark.parametrize("aggregation", get_args(Aggregation))
@pytest.mark.parametrize("surrogate", get_args(SurrogateKind))
def test_golden_batch(surrogate: SurrogateKind, aggregation: Aggregation) -> None:
    """Both sequences at once, with a forced token at the end of the good one."""
    x = torch.stack([log(0.1, 0.2, 0.4, 1.0), log(0.1, 0.2, 0.4, 0.8)]).requires_grad_()
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    old, advantages = log(*[0.2] * 8).view(2, 4), torch.tensor([GOOD, BAD], dtype=torch.double)
    loss, metrics = objective(surrogate, aggregation)(x, old, advantages, mask, TOTALS)
    loss.backward()
    weights = [WEIGHTS[aggregation][advantage == BAD] for advantage, _ in SIDES]
    golden = GOLDEN[surrogate]
    assert loss.item() == pytest.approx(sum(w * g[0] for w, g in zip(weights, golden, strict=True)), abs=1e-6)
    assert x.grad is not None
    slopes = [w * g[1] for w, g in zip(weights, golden, strict=True)]
    assert x.grad[mask].tolist() == pytest.approx(slopes, abs=1e-6)
    assert x.grad[0, 3] == 0
    names = {"clip": ("low", "high"), "dual_clip": ("low", "high", "dual"), "cispo": ("low", "high")}
    expected = {
        f"clip_ratio/{name}_mean": (sum(g[2] == name for g in golden), 7) for name in names.get(surrogate, ())
    }
    if expected:
        expected["clip_ratio/region_mean"] = (sum(g[2] != "" for g in golden), 7)
    expected["ratio_mean"] = (11, 7)  # 0.5 + 1 + 2 twice, and 4
    counted = {name: (value.item(), count.item()) for name, (value, count) in metrics.items()}
    assert counted == {name: pytest.approx(pair) for name, pair in expected.items()}


@pytest.mark.parametrize("side", range(len(SIDES)))
@pytest.mark.parametrize("aggregation", get_args(Aggregation))
@pytest.mark.parametrize("surrogate", get_args(SurrogateKind))
def test_golden_side(surrogate: SurrogateKind, aggregation: Aggregation, side: int) -> None:
    """One token alone in its micro-batch of the same batch."""
    advantage, ratio = SIDES[side]
    x = log(0.2 * ratio)[None].requires_grad_()
    mask, weight = torch.ones(1, 1, dtype=torch.bool), ALONE[aggregation]
    advantages = torch.tensor([advantage], dtype=torch.double)
    loss, _ = objective(surrogate, aggregation)(x, log(0.2)[None], advantages, mask, TOTALS)
    loss.backward()
    expected, slope, _ = GOLDEN[surrogate][side]
    assert loss.item() == pytest.approx(weight * expected, abs=1e-6)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(weight * slope, abs=1e-6)
    if slope == 0:
        assert x.grad.item() == 0
