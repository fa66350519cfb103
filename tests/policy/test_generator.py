"""Rollouts from elsewhere: another engine under the same grammar, and two processes that share the work."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.errors import FlowsmithError
from flowsmith.policy import Generator, LocalGenerator, Policy, PolicyError, Rollout, flow_logprobs, generate
from flowsmith.policy.noise import Name
from tests.policy.world import PROMPTS, small_policy


class _GrammarMask:
    """The grammar as a logits processor of transformers, one sequence."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._state, self._begun = policy, policy.grammar.start(), False

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        offset = self._policy.tokenizer.flow_offset
        if self._begun:
            self._state = self._policy.grammar.advance(self._state, int(ids[0, -1]) - offset)
        self._begun = True
        allowed = [offset + token for token in self._policy.grammar.allowed(self._state)]
        masked = torch.full_like(scores, -torch.inf)
        masked[:, allowed] = scores[:, allowed]
        return masked


class HuggingFaceGenerator:
    """Another engine: `generate` of transformers, one flow after the other."""

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[str],
        samples: int,
        *,
        seed: int,
        temperature: float = 1.0,
        sample_ids: Sequence[Name] | None = None,
    ) -> list[list[Rollout]]:
        torch.manual_seed(seed)
        return [[self._one(policy, prompt, temperature) for _ in range(samples)] for prompt in prompts]

    def _one(self, policy: Policy, prompt: str, temperature: float) -> Rollout:
        ids = policy.tokenizer.encode_prompt(prompt)
        out: Any = policy.causal.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=True,
            top_k=0,
            temperature=temperature,
            max_new_tokens=policy.grammar.budget,
            eos_token_id=policy.tokenizer.flow_offset + policy.codec.language.end,
            pad_token_id=policy.tokenizer.pad,
            logits_processor=[_GrammarMask(policy)],
            output_scores=True,
            return_dict_in_generate=True,
        )
        tokens = out.sequences[0, len(ids) :]
        logprobs = [
            score[0].log_softmax(-1)[token].item() for score, token in zip(out.scores, tokens, strict=True)
        ]
        flow = [token - policy.tokenizer.flow_offset for token in tokens.tolist()]
        return Rollout.from_tokens(policy, prompt, flow, logprobs)


@pytest.mark.parametrize("engine", [LocalGenerator(batch_size=3), HuggingFaceGenerator()])
def test_any_engine_serves_rollouts_that_training_agrees_with(engine: Generator) -> None:
    policy = small_policy(spread=2.0, dtype=torch.double)
    groups = engine.generate(policy, PROMPTS[:2], 2, seed=0, temperature=0.8)
    assert [len(group) for group in groups] == [2, 2]
    for prompt, group in zip(PROMPTS, groups, strict=False):
        logprobs, _, free = flow_logprobs(policy, [prompt] * 2, [r.flow_tokens for r in group], 0.8)
        for row, rollout in enumerate(group):
            told = torch.tensor(rollout.logprobs, dtype=torch.double)
            torch.testing.assert_close(logprobs[row, : len(told)], told, atol=1e-6, rtol=0)
            assert free[row, : len(told)].tolist() == [not forced for forced in rollout.forced]
            assert list(rollout.prompt_ids) == policy.tokenizer.encode_prompt(prompt)


def test_the_local_engine_is_generate() -> None:
    policy = small_policy()
    given: dict[str, Any] = {"seed": 4, "temperature": 0.7, "sample_ids": ["a", "b", "c", "d"]}
    assert LocalGenerator().generate(policy, PROMPTS, 3, **given) == generate(policy, PROMPTS, 3, **given)


def test_a_rollout_from_elsewhere_is_checked() -> None:
    policy = small_policy()
    rollout = generate(policy, PROMPTS[:1], 1, seed=0)[0][0]
    again = Rollout.from_tokens(policy, PROMPTS[0], rollout.flow_tokens, rollout.logprobs)
    assert again == rollout
    with pytest.raises(PolicyError, match="log-probabilities for"):
        Rollout.from_tokens(policy, PROMPTS[0], rollout.flow_tokens, rollout.logprobs[1:])
    with pytest.raises(FlowsmithError):
        Rollout.from_tokens(policy, PROMPTS[0], rollout.flow_tokens[::-1], rollout.logprobs)
    with pytest.raises(PolicyError, match="complete"):
        Rollout.from_tokens(policy, PROMPTS[0], rollout.flow_tokens[:-1], rollout.logprobs[:-1])


_WORKER = """
import json, sys, torch
from flowsmith.policy import generate
from tests.policy.world import PROMPTS, small_policy
rank, world = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
policy = small_policy(dtype=torch.double)
mine = PROMPTS[rank::world]
groups = generate(policy, mine, 6, seed=3, batch_size=7, sample_ids=[f"cycle 5 {p}" for p in mine])
print(json.dumps([[(r.flow_tokens, r.logprobs) for r in group] for group in groups]))
"""


@pytest.mark.slow
def test_one_and_two_processes_sample_the_same() -> None:
    policy = small_policy(dtype=torch.double)
    whole = generate(policy, PROMPTS, 6, seed=3, sample_ids=[f"cycle 5 {p}" for p in PROMPTS])
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, str(rank), "2"], stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    shares = [json.loads(worker.communicate(timeout=120)[0].splitlines()[-1]) for worker in workers]
    for place, group in enumerate(whole):
        for rollout, (tokens, logprobs) in zip(group, shares[place % 2][place // 2], strict=True):
            assert list(rollout.flow_tokens) == tokens
            assert rollout.logprobs == pytest.approx(logprobs, abs=1e-12)
