"""One update, however it is cut: the same gradient. And what the reward is asked."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from flowsmith.flows import Flow
from flowsmith.objectives.aggregation import Aggregation, Totals
from flowsmith.objectives.objective import Objective
from flowsmith.policy import PolicyError, generate, score_flows
from flowsmith.policy.experience import add_reference, cut
from flowsmith.policy.reward import predicted
from tests.policy.world import BUDGET, PROMPTS, small_policy


@pytest.mark.parametrize("aggregation", ["token_mean", "sample_mean", "constant"])
def test_micro_batches_of_any_size_give_one_gradient(aggregation: Aggregation) -> None:
    policy = small_policy(0, 2.0, torch.double)
    policy.train()
    reference = small_policy(1, 2.0, torch.double)
    groups = generate(reference, PROMPTS, 4, seed=0)
    shuffled = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    merits = torch.linspace(-1, 1, 16, dtype=torch.double)[shuffled].view(4, 4)
    objective = Objective(beta=0.1, aggregation=aggregation)
    gradients: list[list[Tensor]] = []
    losses: list[float] = []
    for sequences, tokens in (
        (None, None),
        (1, None),
        (2, None),
        (8, None),
        (None, 70),
        (None, 300),
        (8, 300),
    ):
        (update,) = cut(policy, PROMPTS, groups, merits, 1, sequences, tokens)
        if sequences is not None and tokens is None:
            assert max(len(micro.advantages) for micro in update) == sequences
        if tokens is not None:
            assert all(len(m.flows.packed.ids) <= tokens or len(m.advantages) == 1 for m in update)
            assert 2 <= len(update) <= 16
        add_reference(reference, [update], 1.0)
        free = [micro.flows.free for micro in update]
        totals = Totals(sum(float(f.any(1).sum()) for f in free), sum(float(f.sum()) for f in free), BUDGET)
        policy.zero_grad()
        loss = 0.0
        for micro in update:
            scores = score_flows(policy, micro.flows, gradient_checkpointing=tokens == 300)
            part, _ = objective(
                scores.logprobs,
                micro.old_logprobs,
                micro.advantages,
                scores.free,
                totals,
                micro.reference_logprobs,
            )
            part.backward()
            loss += part.item()
        gradients.append([p.grad.clone() for p in policy.parameters() if p.grad is not None])
        losses.append(loss)
    for found, gradient in zip(losses[1:], gradients[1:], strict=True):
        assert found == pytest.approx(losses[0], abs=1e-12)
        torch.testing.assert_close(gradient, gradients[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("minibatches", [1, 2, 3, 6])
def test_minibatches_hold_every_sequence_once_and_keep_what_belongs_together(minibatches: int) -> None:
    policy = small_policy()
    prompts = [*PROMPTS, "a red star", "a blue circle"]
    groups = generate(policy, prompts, 4, seed=0)
    rollouts = [rollout for group in groups for rollout in group]
    updates = cut(policy, prompts, groups, torch.arange(24.0).view(6, 4), minibatches, 3)
    numbers = [sorted(int(n) for micro in update for n in micro.advantages) for update in updates]
    size = 24 // minibatches
    assert numbers == [list(range(start, start + size)) for start in range(0, 24, size)]
    for micro in (m for update in updates for m in update):
        for row, number in enumerate(int(n) for n in micro.advantages):
            rollout = rollouts[number]
            expected = torch.tensor(rollout.logprobs)
            assert torch.equal(micro.old_logprobs[row, : len(expected)], expected)
            sequence = [*rollout.prompt_ids, *(policy.tokenizer.flow_offset + t for t in rollout.flow_tokens)]
            packed = micro.flows.packed
            assert packed.ids[packed.rows[row, packed.real[row]]].tolist() == sequence


@pytest.mark.parametrize("minibatches", [3, 5, 8])
def test_groups_are_not_torn_apart_among_minibatches(minibatches: int) -> None:
    policy = small_policy()
    groups = generate(policy, PROMPTS, 2, seed=0)
    with pytest.raises(PolicyError, match=f"minibatches={minibatches} for 4 prompts"):
        cut(policy, PROMPTS, groups, torch.zeros(4, 2), minibatches, 3)


def test_the_first_update_has_ratio_one_against_the_sampler() -> None:
    policy = small_policy(spread=2.0, dtype=torch.double)
    groups = generate(policy, PROMPTS, 4, seed=0)
    ((micro,),) = cut(policy, PROMPTS, groups, torch.ones(4, 4), 1, 16)
    scores = score_flows(policy, micro.flows)
    torch.testing.assert_close(scores.logprobs, micro.old_logprobs.double(), atol=1e-6, rtol=0)


class CountingReward:
    """Answers with the length of prompt and flow; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        self.asked += [(prompt, flow.key) for prompt, flow in zip(prompts, flows, strict=True)]
        values = [len(p) + len(f.nodes) / 100 for p, f in zip(prompts, flows, strict=True)]
        return torch.tensor(values), torch.tensor(values) / 2


def test_equal_pairs_are_asked_once_and_answered_everywhere() -> None:
    policy = small_policy(spread=12.0)
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0]]
    groups = generate(policy, prompts, 6, seed=0)
    reward = CountingReward()
    mean, std = predicted(reward, prompts, groups)
    assert len(set(reward.asked)) == len(reward.asked) < 18
    expected = [[len(p) + len(r.flow.nodes) / 100 for r in g] for p, g in zip(prompts, groups, strict=True)]
    torch.testing.assert_close(mean, torch.tensor(expected))
    torch.testing.assert_close(std, mean / 2)


class BrokenReward:
    def __init__(self, extra: int = 0, value: float = 0.0) -> None:
        self.extra, self.value = extra, value

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        mean = torch.zeros(len(prompts) + self.extra)
        mean[0] = self.value
        return mean, torch.zeros_like(mean)


@pytest.mark.parametrize(
    ("reward", "message"),
    [(BrokenReward(extra=1), "shapes"), (BrokenReward(value=float("nan")), "two red stars")],
)
def test_a_reward_of_wrong_length_or_not_a_number_is_named(reward: BrokenReward, message: str) -> None:
    groups = generate(small_policy(), PROMPTS, 2, seed=0)
    with pytest.raises(PolicyError, match=message):
        predicted(reward, PROMPTS, groups)
