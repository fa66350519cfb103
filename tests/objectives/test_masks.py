"""By hand: the mask of high entropy, truncated sequences, the punishment of long ones."""

import math

import pytest
import torch

from flowsmith.objectives.aggregation import Aggregation, Totals
from flowsmith.objectives.entropy_mask import entropy_threshold, top_entropy_mask
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.truncation import overlong_punishment, without_truncated
from tests.objectives.two_sequences import ADVANTAGES, MASK, NEW, OLD, logs, new, slopes


@pytest.mark.parametrize(
    ("share", "threshold"), [(0.2, 5.0), (0.21, 4.0), (0.4, 4.0), (0.8, 2.0), (1.0, 1.0), (0.01, 5.0)]
)
def test_threshold_of_the_highest_share(share: float, threshold: float) -> None:
    assert entropy_threshold(torch.tensor([3.0, 5.0, 1.0, 4.0, 2.0]), share) == threshold


def test_only_tokens_of_high_entropy_teach_and_all_count() -> None:
    entropy = torch.tensor([[0.5, 2.0, 9.0], [1.0, 9.0, 9.0]])
    threshold = entropy_threshold(entropy[MASK], 0.5)  # two of three: 1 and 2
    policy_mask = top_entropy_mask(entropy, MASK, threshold)
    assert policy_mask.tolist() == [[False, True, False], [True, False, False]]
    x = new()
    objective = Objective(top_entropy=0.5, aggregation="token_mean", beta=0.3)
    reference = logs([[0.75, 0.5, 0.5], [0.5, 0.5, 0.5]])
    loss, metrics = objective(x, OLD, ADVANTAGES, MASK, Totals.of(MASK), reference, policy_mask=policy_mask)
    loss.backward()
    # Surrogate: out, -1, 0.8 (clipped); k3: 0, 0, 2 - 1 + log 0.5; three tokens in the denominator.
    assert loss.item() == pytest.approx((-1 + 0.8 + 0.3 * (1 + math.log(0.5))) / 3)
    assert slopes(x) == pytest.approx([0.0, -1 / 3, -0.3 / 3])
    assert metrics["clip_ratio/region_mean"][1] == 3
    assert entropy_threshold(torch.zeros(0), 0.5) == 0


def test_truncated_sequences_leave_the_denominators() -> None:
    mask = without_truncated(MASK, torch.tensor([False, True]))
    aggregations: list[Aggregation] = ["sample_mean", "token_mean"]
    for aggregation in aggregations:
        loss, metrics = Objective(aggregation=aggregation)(NEW, OLD, ADVANTAGES, mask, Totals.of(mask))
        assert loss.item() == pytest.approx((-1.2 - 1) / 2)  # tokens of the first sequence alone
        assert metrics["clip_ratio/high_mean"][1] == 2


def test_punishment_of_long_completions_grows_over_the_last_tokens() -> None:
    lengths = torch.tensor([10, 80, 85, 90, 95, 100, 120])
    punishment = overlong_punishment(lengths, limit=100, buffer=20)
    assert punishment.tolist() == pytest.approx([0, 0, -0.25, -0.5, -0.75, -1, -1])
