"""Sampled flows: valid, the same however they are batched, and as likely as training thinks."""

import collections
import math

import pytest
import torch

from flowsmith.flows import validate
from flowsmith.policy import PolicyError, Rollout, flow_logprobs, generate
from tests.policy.world import BUDGET, PROMPTS, small_codec, small_policy

Groups = list[list[Rollout]]


def flat(groups: Groups) -> list[Rollout]:
    return [rollout for group in groups for rollout in group]


def tokens(groups: Groups) -> list[list[tuple[int, ...]]]:
    return [[rollout.flow_tokens for rollout in group] for group in groups]


def test_every_flow_is_valid_complete_and_within_the_budget() -> None:
    policy = small_policy()
    rollouts = flat(generate(policy, PROMPTS, 12, seed=0))
    assert len({r.flow.key for r in rollouts}) > 30  # otherwise little was tried
    for rollout in rollouts:
        assert validate(rollout.flow, small_codec().schema) == []
        assert small_codec().domain.issues(rollout.flow, small_codec().schema) == []
        assert small_codec().decode(rollout.flow_tokens) == rollout.flow
        assert len(rollout.flow_tokens) <= BUDGET


def test_forced_means_that_the_grammar_left_no_choice() -> None:
    policy = small_policy()
    for rollout in flat(generate(policy, PROMPTS, 4, seed=0)):
        choices = [len(policy.grammar.allowed(s)) for s in policy.grammar.replay(rollout.flow_tokens)]
        assert [n == 1 for n in choices] == list(rollout.forced)
        assert all((p == 0) == forced for p, forced in zip(rollout.logprobs, rollout.forced, strict=True))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_split_changes_no_token(batch_size: int) -> None:
    policy = small_policy(dtype=torch.double)
    whole = generate(policy, PROMPTS, 7, seed=3, batch_size=1000)
    assert tokens(generate(policy, PROMPTS, 7, seed=3, batch_size=batch_size)) == tokens(whole)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_split_changes_log_probabilities_by_rounding_alone(batch_size: int) -> None:
    policy = small_policy(spread=2.0)
    whole = flat(generate(policy, PROMPTS, 7, seed=3, batch_size=1000))
    parts = flat(generate(policy, PROMPTS, 7, seed=3, batch_size=batch_size))
    equal = [(a, b) for a, b in zip(whole, parts, strict=True) if a.flow_tokens == b.flow_tokens]
    assert len(equal) > 0.9 * len(whole)  # where rounding decides between two tokens, flows may part
    for one, other in equal:
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_a_sample_belongs_to_its_prompt_and_number_not_to_its_place() -> None:
    policy = small_policy(dtype=torch.double)
    whole = tokens(generate(policy, PROMPTS, 4, seed=3))
    assert tokens(generate(policy, PROMPTS[::-1], 2, seed=3)) == [group[:2] for group in whole[::-1]]
    assert tokens(generate(policy, PROMPTS, 4, seed=4)) != whole
    named = tokens(generate(policy, [PROMPTS[0]] * 2, 4, seed=3, sample_ids=["a", "b"]))
    assert named[0] != named[1]
    assert named[1] == tokens(generate(policy, [PROMPTS[0]], 4, seed=3, sample_ids=["b"]))[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.double, 1e-12)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_and_training_agree(dtype: torch.dtype, tolerance: float, temperature: float) -> None:
    """Cached, ragged decoding in many steps against one uncached padded forward."""
    policy = small_policy(spread=2.0, dtype=dtype)
    rollouts = flat(generate(policy, PROMPTS, 8, seed=0, temperature=temperature))
    prompts = [prompt for prompt in PROMPTS for _ in range(8)]
    logprobs, _, free = flow_logprobs(policy, prompts, [r.flow_tokens for r in rollouts], temperature)
    for row, rollout in enumerate(rollouts):
        count = len(rollout.flow_tokens)
        sampled = torch.tensor(rollout.logprobs, dtype=torch.double)
        torch.testing.assert_close(logprobs[row, :count].double(), sampled, atol=tolerance, rtol=0)
        assert free[row, :count].tolist() == [not forced for forced in rollout.forced]
        assert not free[row, count:].any()


def test_frequencies_are_the_policy_s_probabilities() -> None:
    """Chi-squared over all flows of a prompt would need many samples; the first choice of many is enough."""
    policy = small_policy(spread=6.0)
    rollouts = flat(generate(policy, PROMPTS[:1], 600, seed=0, batch_size=600))
    first = rollouts[0].forced.index(False)
    counts = collections.Counter(r.flow_tokens[first] for r in rollouts)
    probability = {r.flow_tokens[first]: math.exp(r.logprobs[first]) for r in rollouts}
    assert sum(probability.values()) == pytest.approx(1, abs=1e-3)
    chi = sum((counts[t] - 600 * p) ** 2 / (600 * p) for t, p in probability.items())
    # 99.9th percentile of chi-squared with k degrees of freedom, generously: k + 5 sqrt(2 k) + 5.
    degrees = len(probability) - 1
    assert degrees >= 1
    assert chi < degrees + 5 * math.sqrt(2 * degrees) + 5


def test_guidance_ends_are_reference_and_policy_token_for_token() -> None:
    policy, reference = small_policy(0), small_policy(1)
    alone = tokens(generate(policy, PROMPTS, 6, seed=0)), tokens(generate(reference, PROMPTS, 6, seed=0))
    assert alone[0] != alone[1]
    guided = [
        tokens(generate(policy, PROMPTS, 6, seed=0, reference=reference, guidance=w)) for w in (1.0, 0.0)
    ]
    assert (guided[0], guided[1]) == alone


@pytest.mark.parametrize("weight", [0.5, 2.0, -1.0])
def test_guided_logprobs_are_those_of_combined_logits(weight: float) -> None:
    """Independent: whole sequences through the Hugging Face models, log-softmax over the allowed set."""
    policy, reference = small_policy(0, 2.0, torch.double), small_policy(1, 2.0, torch.double)
    (rollout,) = flat(generate(policy, PROMPTS[:1], 1, seed=0, reference=reference, guidance=weight))
    offset, prompt = policy.tokenizer.flow_offset, list(rollout.prompt_ids)
    ids = torch.tensor([prompt + [offset + t for t in rollout.flow_tokens]])
    with torch.no_grad():
        a, b = (p.causal(ids).logits[0, len(prompt) - 1 : -1, offset:] for p in (reference, policy))
    combined = a + weight * (b - a)
    mask = policy.grammar.mask(policy.grammar.replay(rollout.flow_tokens))
    expected = combined.masked_fill(~mask, -torch.inf).log_softmax(-1)
    expected = expected[range(len(mask)), list(rollout.flow_tokens)]
    torch.testing.assert_close(
        torch.tensor(rollout.logprobs, dtype=torch.double), expected, atol=1e-10, rtol=0
    )


def test_low_temperature_takes_the_likeliest() -> None:
    policy = small_policy()
    group = generate(policy, PROMPTS[:1], 5, seed=0, temperature=1e-4)[0]
    assert len({r.flow_tokens for r in group}) == 1


def test_mode_of_the_network_is_left_as_it_was() -> None:
    policy = small_policy()
    for training in (True, False):
        policy.train(training)
        generate(policy, PROMPTS[:1], 1, seed=0)
        assert policy.model.training is training
    assert all(p.grad is None and p.requires_grad for p in policy.parameters())


def test_no_prompts_no_samples() -> None:
    assert generate(small_policy(), [], 3, seed=0) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "at least 1 sample"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"temperature": math.nan}, "temperature > 0"),
        ({"guidance": 2.0}, "give reference"),
        ({"guidance": math.inf}, "finite"),
        ({"sample_ids": ["a"]}, "one each"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        generate(small_policy(), PROMPTS, **({"samples": 1, "seed": 0} | settings))  # type: ignore[arg-type]


def test_a_prompt_longer_than_the_context_is_named() -> None:
    with pytest.raises(PolicyError, match="shorten the prompt"):
        generate(small_policy(context=128), ["two red stars " * 60], 1, seed=0)
