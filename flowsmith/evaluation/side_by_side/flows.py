"""Writing flows: ours, guided, and Hugging Face's ``generate`` with the same grammar as a logits processor."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsmith.evaluation.side_by_side.floor import synchronise
from flowsmith.evaluation.side_by_side.work import Work
from flowsmith.flows import Codec, Domain
from flowsmith.flows.schema_beside import schema_beside
from flowsmith.policy import FlowBatch, FlowTokenizer, Policy, generate, score_flows
from flowsmith.policy.allowed import AllowedSets
from flowsmith.policy.noise import permutation
from flowsmith.policy.pairs import scored_pairs
from flowsmith.prompts import read_prompts
from flowsmith.scored_flows import read_scored_flows

_BUDGET = 96
_GUIDANCE = 1.5
_LESSONS, _PAIRS, _LEARNING_RATE = 100, 32, 2e-3


class Writers:
    """Policies of a work's shape over a domain, untrained at first, and ways to have flows from them.

    Attributes:
        prompts: For which flows are written.
        samples: Flows for each.
    """

    def __init__(self, work: Work, domain: Path, prompts: Path, device: torch.device) -> None:
        """Build policy and reference; their text vocabulary is learnt from the prompts."""
        codec = Codec(schema_beside(domain), Domain.from_yaml(domain))
        captions = [prompt.text for prompt in read_prompts(prompts, "train")]
        tokenizer = FlowTokenizer.from_captions(captions, codec, 512)
        self.prompts, self.samples = captions[: work.prompts], work.samples
        self._policy, self._reference = (
            Policy.create(
                codec, tokenizer, _BUDGET, hidden=work.hidden, layers=work.layers, heads=work.heads, seed=seed
            )
            .eval()
            .to(device)
            for seed in (0, 1)
        )
        self._rounds = 0

    def learn(self, scored_flows: Path) -> None:
        """Begin to write as policies do when GRPO begins: a short phase one, after which both are the same policy.

        Args:
            scored_flows: Parquet file or folder with pairs of prompt and flow.
        """
        policy = self._policy
        pairs = scored_pairs(read_scored_flows(scored_flows, "train").to_pylist(), policy.codec)
        optimizer = torch.optim.AdamW(policy.parameters(), _LEARNING_RATE)
        for lesson in range(_LESSONS):
            chosen = [pairs[place] for place in permutation(len(pairs), lesson)[:_PAIRS]]
            batch = FlowBatch.build(
                policy, [pair.prompt for pair in chosen], [pair.tokens for pair in chosen]
            )
            scores = score_flows(policy, batch)
            optimizer.zero_grad()
            (-scores.logprobs.sum() / scores.free.sum()).backward()
            optimizer.step()
        self._reference.load_state_dict(policy.state_dict())

    def ours(self) -> float:
        """Return the seconds that one round of flows takes."""
        return self._timed(lambda seed: generate(self._policy, self.prompts, self.samples, seed=seed))

    def guided(self) -> float:
        """Return the seconds of a round that two models write together."""
        return self._timed(
            lambda seed: generate(
                self._policy,
                self.prompts,
                self.samples,
                seed=seed,
                reference=self._reference,
                guidance=_GUIDANCE,
            )
        )

    def hugging_face(self) -> float:
        """Return the seconds of a round of ``generate``, prompts padded on the left."""
        return self._timed(self._generate)

    def mask_share(self) -> float:
        """Return the share of a round of ours that the grammar takes: where it is, what it allows, the masks."""
        with _spent_in((type(self._policy.allowed_sets.choices), "after"), (AllowedSets, "masks")) as spent:
            whole = self.ours()
        return spent[0] / whole

    def _timed(self, write: Callable[[int], Any]) -> float:
        self._rounds += 1
        synchronise(self._policy.device)
        start = time.perf_counter()
        write(self._rounds)
        synchronise(self._policy.device)
        return time.perf_counter() - start

    def _generate(self, seed: int) -> None:
        from transformers import GenerationConfig, LogitsProcessorList

        policy, tokenizer = self._policy, self._policy.tokenizer
        encoded = policy.encode_prompts(self.prompts)
        width = max(map(len, encoded))
        ids = torch.tensor(
            [[tokenizer.pad] * (width - len(prompt)) + prompt for prompt in encoded], device=policy.device
        ).repeat_interleave(self.samples, 0)
        config = GenerationConfig(
            max_new_tokens=_BUDGET,
            do_sample=True,
            top_k=0,
            pad_token_id=tokenizer.pad,
            eos_token_id=tokenizer.flow_offset + policy.codec.language.end,
        )
        torch.manual_seed(seed)
        with torch.no_grad():
            policy.causal.generate(
                input_ids=ids,
                attention_mask=(ids != tokenizer.pad).long(),
                generation_config=config,
                logits_processor=LogitsProcessorList([_Grammar(policy, len(ids))]),
            )


class _Grammar:
    """A logits processor that lets through what the grammar allows."""

    def __init__(self, policy: Policy, rows: int) -> None:
        self._policy = policy
        self._states: list[Any] = [policy.grammar.start()] * rows
        self._started = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        grammar, tokenizer = self._policy.grammar, self._policy.tokenizer
        if self._started:
            self._states = [
                state if state.done else grammar.advance(state, token - tokenizer.flow_offset)
                for state, token in zip(self._states, input_ids[:, -1].tolist(), strict=True)
            ]
        self._started = True
        mask = torch.zeros(scores.shape, dtype=torch.bool)
        live = [row for row, state in enumerate(self._states) if not state.done]
        mask[live, tokenizer.flow_offset :] = grammar.mask([self._states[row] for row in live])
        mask[[row for row, state in enumerate(self._states) if state.done], tokenizer.pad] = True
        return scores.masked_fill(~mask.to(scores.device), -torch.inf)


@contextmanager
def _spent_in(*methods: tuple[type, str]) -> Iterator[list[float]]:
    """Add up the seconds that are spent in methods while inside, none of which calls another."""
    spent = [0.0]

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                spent[0] += time.perf_counter() - start

        return call

    originals = [(owner, name, getattr(owner, name)) for owner, name in methods]
    for owner, name, method in originals:
        setattr(owner, name, timed(method))
    try:
        yield spent
    finally:
        for owner, name, method in originals:
            setattr(owner, name, method)
