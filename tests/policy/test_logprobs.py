"""Log-probabilities against an independent computation through the whole Hugging Face model."""

import pytest
import torch

from flowsmith.flows import Codec, Domain, Grammar, GrammarError, Schema, State
from flowsmith.policy import (
    FlowBatch,
    FlowTokenizer,
    Policy,
    PolicyError,
    flow_logprobs,
    generate,
    score_flows,
)
from tests.policy.world import BUDGET, DOMAIN, PROMPTS, small_codec, small_policy


def sampled(policy: Policy, samples: int = 3) -> tuple[list[str], list[tuple[int, ...]]]:
    groups = generate(policy, PROMPTS, samples, seed=0)
    return [p for p in PROMPTS for _ in range(samples)], [r.flow_tokens for g in groups for r in g]


def by_hand(
    policy: Policy, prompt: str, tokens: tuple[int, ...], temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One sequence, no padding, all logits, the grammar's own masks; forced tokens included as 0."""
    ids = policy.tokenizer.encode_prompt(prompt)
    offset = policy.tokenizer.flow_offset
    logits = policy.causal(torch.tensor([ids + [offset + t for t in tokens]])).logits[0, len(ids) - 1 : -1]
    mask = policy.grammar.mask(policy.grammar.replay(tokens))
    probabilities = (logits[:, offset:] / temperature).exp() * mask
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities[range(len(tokens)), list(tokens)].log(), torch.special.entr(probabilities).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_against_the_whole_model_one_sequence_at_a_time(temperature: float) -> None:
    policy = small_policy(spread=2.0, dtype=torch.double)
    prompts, flows = sampled(policy)
    logprobs, entropy, free = flow_logprobs(policy, prompts, flows, temperature)
    for row, (prompt, tokens) in enumerate(zip(prompts, flows, strict=True)):
        expected, spread = by_hand(policy, prompt, tokens, temperature)
        torch.testing.assert_close(logprobs[row, : len(tokens)], expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(entropy[row, : len(tokens)], spread, atol=1e-12, rtol=0)
        assert (logprobs[row][~free[row]] == 0).all()
        assert (entropy[row][~free[row]] == 0).all()


def test_gradient_against_the_whole_model() -> None:
    policy = small_policy(spread=2.0, dtype=torch.double)
    prompts, flows = sampled(policy)
    flow_logprobs(policy, prompts, flows)[0].sum().backward()
    ours = [p.grad.clone() for p in policy.parameters() if p.grad is not None]
    policy.zero_grad()
    torch.stack(
        [by_hand(policy, p, t, 1.0)[0].sum() for p, t in zip(prompts, flows, strict=True)]
    ).sum().backward()
    for mine, parameter in zip(ours, policy.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, atol=1e-10, rtol=1e-9)


def test_probabilities_of_all_flows_of_a_small_language_sum_to_one() -> None:
    """With the shortest budget few flows exist; walk through all of them."""
    codec = small_codec()
    shortest = next(b for b in range(8, BUDGET) if _fits(b))
    policy = Policy.create(codec, small_policy().tokenizer, shortest, hidden=16, layers=1, heads=1)
    policy.double()
    flows: list[tuple[int, ...]] = []
    stack: list[tuple[tuple[int, ...], State]] = [((), policy.grammar.start())]
    while stack and len(flows) < 5000:
        tokens, state = stack.pop()
        if state.done:
            flows.append(tokens)
        stack += [((*tokens, t), policy.grammar.advance(state, t)) for t in policy.grammar.allowed(state)]
    assert not stack
    with torch.no_grad():
        total = torch.cat(
            [
                flow_logprobs(policy, [PROMPTS[0]] * len(part), part)[0].sum(1).exp()
                for part in (flows[i : i + 256] for i in range(0, len(flows), 256))
            ]
        ).sum()
    assert total.item() == pytest.approx(1, abs=1e-9)


def _fits(budget: int) -> bool:
    try:
        Grammar(small_codec(), budget)
    except GrammarError:
        return False
    return True


def test_likeliest_marks_the_argmax() -> None:
    policy = small_policy()
    greedy = generate(policy, PROMPTS[:1], 1, seed=0, temperature=1e-4)[0][0]
    scores = score_flows(policy, FlowBatch.build(policy, PROMPTS[:1], [greedy.flow_tokens]))
    assert torch.equal(scores.likeliest, scores.free)


def test_masks_are_kept_once_for_each_set() -> None:
    policy = small_policy()
    prompts, flows = sampled(policy, 20)
    batch = FlowBatch.build(policy, prompts, flows)
    assert batch.allowed is not None
    masks, mask_of = batch.allowed
    assert len(masks) == len({tuple(row) for row in masks.tolist()}) < len(mask_of) / 10
    rows = [policy.grammar.mask(policy.grammar.replay(tokens)) for tokens in flows]
    for mask, (b, t) in zip(masks[mask_of], zip(*batch.target, strict=True), strict=True):
        assert torch.equal(mask, rows[int(b)][int(t)])


def test_a_flow_that_the_grammar_forces_wholly_has_probability_one() -> None:
    only = {name: grid[-1:] for name, grid in DOMAIN["values"].items()}
    texts = {role: grid[:1] for role, grid in DOMAIN["texts"].items()}
    classes = {name: 2 if name == "CLIPTextEncode" else 1 for name in DOMAIN["classes"]}
    del classes["LoraLoader"], classes["LatentUpscaleBy"]
    values = {name: grid for name, grid in only.items() if name.partition(".")[0] in classes}
    codec = Codec(
        Schema.core(), Domain.from_json(DOMAIN | {"classes": classes, "values": values, "texts": texts})
    )
    policy = Policy.create(
        codec, FlowTokenizer.from_captions(PROMPTS, codec, 320), BUDGET, hidden=16, layers=1, heads=1
    )
    groups = generate(policy, PROMPTS[:2], 2, seed=0)
    flows = [rollout.flow_tokens for group in groups for rollout in group]
    assert len(set(flows)) == 1
    logprobs, entropy, free = flow_logprobs(policy, [PROMPTS[0]] * 4, flows)
    assert logprobs.shape == (4, len(flows[0]))
    assert not free.any()
    assert logprobs.exp().eq(1).all()
    assert entropy.eq(0).all()
    logprobs.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in policy.parameters())


@pytest.mark.parametrize(
    ("name", "value"), [("heads", 0), ("hidden", 0), ("hidden", -1), ("layers", 0), ("context", 0)]
)
def test_sizes_of_nothing_are_refused(name: str, value: int) -> None:
    with pytest.raises(PolicyError, match=f"{name}={value}.*1 or more"):
        small_policy(**{name: value})  # type: ignore[arg-type]


def test_tokens_that_the_grammar_forbids_are_refused() -> None:
    policy = small_policy()
    with pytest.raises(GrammarError):
        flow_logprobs(policy, PROMPTS[:1], [(1, 2, 3)])
