"""One update, however it is cut: the same gradient. And what the reward is asked."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from flowsmith.flows import Flow
from flowsmith.objectives.aggregation import Aggregation, Totals
from flowsmith.objectives.objective import Objective
from flowsmith.policy import Policy, PolicyError, generate, score_flows
from flowsmith.policy.experience import Sample, add_reference, cut, first_pass, samples_of
from flowsmith.policy.mismatch import Correction
from flowsmith.policy.reward import predicted
from tests.policy.group_world import groups_of
from tests.policy.world import BUDGET, PROMPTS, small_policy


def samples(sampler: Policy, cycle: int = 0, **changes: list[tuple[float, ...]]) -> list[Sample]:
    """Four prompts, four samples each; sampled in cycle 0."""
    groups = groups_of(sampler, PROMPTS, 4, rewards=changes.get("rewards"))
    return samples_of(groups, range(4), cycle, None)


@pytest.mark.parametrize("aggregation", ["token_mean", "sample_mean", "constant"])
def test_micro_batches_of_any_size_give_one_gradient(aggregation: Aggregation) -> None:
    policy = small_policy(0, 2.0, torch.double)
    policy.train()
    reference = small_policy(1, 2.0, torch.double)
    nan = float("nan")
    drawn = samples(reference, rewards=[(1.0, nan, 0.0, 2.0), *[(0.0, 1.0, 2.0, 3.0)] * 2, (nan,) * 4])
    merits = torch.linspace(-1, 1, 16, dtype=torch.double)[torch.randperm(16, generator=_seeded(0))]
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
        update = cut(policy, drawn, sequences, tokens)
        if sequences is not None and tokens is None:
            assert max(len(micro.rows) for micro in update) == sequences
        if tokens is not None:
            assert all(len(m.flows.packed.ids) <= tokens or len(m.rows) == 1 for m in update)
            assert 2 <= len(update) <= 16
        add_reference(reference, [update], 1.0)
        totals = Totals(
            sum(float(micro.mask.any(1).sum()) for micro in update),
            sum(float(micro.mask.sum()) for micro in update),
            BUDGET,
        )
        assert totals.sequences == 11  # five of the samples have no reward
        policy.zero_grad()
        loss = 0.0
        for micro in update:
            micro.advantages = merits[micro.rows]
            scores = score_flows(policy, micro.flows, gradient_checkpointing=tokens == 300)
            part, _ = objective(
                scores.logprobs,
                micro.old_logprobs,
                micro.advantages,
                micro.mask,
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


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_micro_batches_hold_every_sample_once_and_keep_what_belongs_together() -> None:
    policy = small_policy()
    drawn = samples(policy)
    update = cut(policy, drawn, 3)
    assert sorted(row for micro in update for row in micro.rows) == list(range(16))
    for micro in update:
        for index, row in enumerate(micro.rows):
            expected = torch.tensor(drawn[row].logprobs)
            assert torch.equal(micro.sampled_logprobs[index, : len(expected)], expected)
            head = policy.encode_prompts([PROMPTS[row // 4]])[0]
            sequence = [*head, *(policy.tokenizer.flow_offset + t for t in drawn[row].tokens)]
            packed = micro.flows.packed
            assert packed.ids[packed.rows[index, packed.real[index]]].tolist() == sequence


def test_samples_that_do_not_count_are_left_out_of_the_mask() -> None:
    policy = small_policy()
    nan = float("nan")
    groups = groups_of(policy, PROMPTS[:2], 3, rewards=[(1.0, nan, 2.0), (0.0, 1.0, 2.0)])
    longest = max(len(tokens) for group in groups for tokens in group.tokens)
    for limit, expected in ((None, {0, 2, 3, 4, 5}), (longest, None)):
        update = cut(policy, samples_of(groups, [0, 1], 0, limit))
        counting = {
            micro.rows[index]
            for micro in update
            for index in range(len(micro.rows))
            if micro.mask[index].any()
        }
        lengths = [len(tokens) for group in groups for tokens in group.tokens]
        short = {row for row, length in enumerate(lengths) if length < longest and row != 1}
        assert counting == (short if expected is None else expected)
    assert any(length == longest for length in lengths)


def test_the_first_update_has_ratio_one_against_the_sampler() -> None:
    policy = small_policy(spread=2.0, dtype=torch.double)
    (micro,) = cut(policy, samples(policy))
    scores = score_flows(policy, micro.flows)
    torch.testing.assert_close(scores.logprobs, micro.old_logprobs.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("correction", ["none", "token", "sequence"])
def test_a_sampler_that_is_off_is_corrected_where_it_sampled_now(correction: Correction) -> None:
    """Log-probabilities that are told 0.1 too low: weights e^0.1 a token, or their product, at most 2."""
    policy = small_policy(spread=2.0, dtype=torch.double)
    told = [
        s._replace(logprobs=tuple(p - 0.1 if p else 0.0 for p in s.logprobs), fresh=s.row < 8)
        for s in samples(policy)
    ]
    update = cut(policy, told, 8)
    entropies = first_pass(policy, update, 1.0, correction, cap=2.0)
    assert len(entropies) == sum(int(micro.mask.sum()) for micro in update)
    for micro in update:
        scores = score_flows(policy, micro.flows)
        fresh = micro.fresh[:, None] & micro.mask
        if correction == "none":
            assert micro.weights is None
            assert micro.old_logprobs is micro.sampled_logprobs
            continue
        assert micro.weights is not None
        torch.testing.assert_close(micro.old_logprobs[fresh].double(), scores.logprobs[fresh])
        assert torch.equal(micro.old_logprobs[~micro.fresh], micro.sampled_logprobs[~micro.fresh].double())
        if correction == "token":
            expected = fresh.double().mul(0.1).exp()
        else:
            expected = fresh.sum(1, keepdim=True).double().mul(0.1).exp().clamp(max=2)
        torch.testing.assert_close(micro.weights.double(), expected, atol=1e-5, rtol=0)


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
    def __init__(self, extra: int = 0, value: float = 0.0, doubt: float = 0.0) -> None:
        self.extra, self.value, self.doubt = extra, value, doubt

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        mean, std = torch.ones(2, len(prompts) + self.extra)
        mean[0], std[0] = self.value, self.doubt
        return mean, std


def test_a_reward_of_wrong_length_is_named() -> None:
    groups = generate(small_policy(), PROMPTS, 2, seed=0)
    with pytest.raises(PolicyError, match=r"reward=BrokenReward: asked for 8 pairs.*\(9,\)"):
        predicted(BrokenReward(extra=1), PROMPTS, groups)


@pytest.mark.parametrize(("value", "doubt"), [(float("nan"), 0.0), (0.0, float("inf")), (float("-inf"), 1.0)])
def test_what_is_no_number_is_nan_in_both_and_nowhere_else(value: float, doubt: float) -> None:
    groups = generate(small_policy(), PROMPTS, 2, seed=0)
    mean, std = predicted(BrokenReward(value=value, doubt=doubt), PROMPTS, groups)
    assert mean.isnan().flatten().tolist() == std.isnan().flatten().tolist() == [True] + [False] * 7
