import math

import pytest
import torch

from flowsmith.rewards.losses import ranking_loss, regression_loss


def test_regression_by_hand() -> None:
    predicted = torch.tensor([0.5, 3.0, 9.0])
    loss = regression_loss(predicted, torch.zeros(3), torch.tensor([1.0, 3.0, 0.0]))
    # 0.5 * 0.25 inside delta, 3 - 0.5 outside; the third row has no weight.
    assert float(loss) == pytest.approx((0.125 + 3 * 2.5) / 4)


def test_ranking_by_hand() -> None:
    predicted = torch.tensor([1.0, 0.0, 50.0])
    target = torch.tensor([2.0, 0.0, -9.0])
    loss = ranking_loss(predicted, target, torch.ones(3), torch.tensor([0, 0, 1]))
    assert float(loss) == pytest.approx(
        math.log(1 + math.exp(-1))
    )  # the third row stands alone in its prompt


def test_ranking_weighs_pairs_by_their_difference() -> None:
    predicted = torch.tensor([0.0, 1.0, 3.0])
    target = torch.tensor([0.0, 1.0, 3.0])
    pairs = [(1, 1.0), (3, 3.0), (2, 2.0)]  # difference in target, difference in prediction
    expected = sum(d * math.log(1 + math.exp(-p)) for d, p in pairs) / 6
    loss = ranking_loss(predicted, target, torch.ones(3), torch.zeros(3, dtype=torch.long))
    assert float(loss) == pytest.approx(expected)


def test_ranking_does_not_see_the_level_of_a_prompt() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 12, generator=generator)
    group = torch.arange(12) // 4
    offset = torch.tensor([5.0, -3.0, 0.0])[group]
    weight = torch.rand(12, generator=generator)
    moved = ranking_loss(predicted + offset, target + 2 * offset, weight, group)
    assert float(moved) == pytest.approx(float(ranking_loss(predicted, target, weight, group)), rel=1e-5)


def test_ranking_falls_when_order_improves() -> None:
    predicted = torch.zeros(4, requires_grad=True)
    target = torch.tensor([3.0, 1.0, 0.0, 2.0])
    ranking_loss(predicted, target, torch.ones(4), torch.zeros(4, dtype=torch.long)).backward()
    assert predicted.grad is not None
    assert (-predicted.grad).argsort(descending=True).tolist() == [0, 3, 1, 2]
    assert float(predicted.grad.sum()) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("target", [torch.ones(3), torch.tensor([1.0])])
def test_nothing_to_rank_is_zero_with_a_gradient(target: torch.Tensor) -> None:
    predicted = torch.zeros_like(target, requires_grad=True)
    loss = ranking_loss(
        predicted, target, torch.ones_like(target), torch.zeros_like(target, dtype=torch.long)
    )
    loss.backward()
    assert loss.item() == 0
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()


def test_repeated_rows_equal_integer_weights() -> None:
    predicted, target = torch.tensor([0.3, -0.2, 1.0]), torch.tensor([1.0, 0.0, 0.4])
    weight, group = torch.tensor([2.0, 1.0, 1.0]), torch.zeros(3, dtype=torch.long)
    repeat = torch.tensor([0, 0, 1, 2])
    ones, zeros = torch.ones(4), torch.zeros(4, dtype=torch.long)
    assert float(ranking_loss(predicted, target, weight, group)) == pytest.approx(
        float(ranking_loss(predicted[repeat], target[repeat], ones, zeros))
    )
    assert float(regression_loss(predicted, target, weight)) == pytest.approx(
        float(regression_loss(predicted[repeat], target[repeat], ones))
    )
