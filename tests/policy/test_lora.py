"""LoRA on a hub model: rows for new tokens, two adapters on one base, exact exports."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from flowsmith.policy import (
    FlowBatch,
    Policy,
    PolicyError,
    flow_logprobs,
    generate,
    load_pair,
    score_flows,
)
from tests.policy.world import BUDGET, PROMPTS, small_codec, write_text_model


def flows_of(policy: Policy) -> tuple[list[str], list[tuple[int, ...]]]:
    groups = generate(policy, PROMPTS, 2, seed=0)
    return [p for p in PROMPTS for _ in range(2)], [r.flow_tokens for g in groups for r in g]


def train(
    policy: Policy, prompts: list[str], flows: list[tuple[int, ...]], steps: int, sign: float = 1.0
) -> float:
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], 0.02)
    mean = torch.zeros(())
    for _ in range(steps):
        logprobs, _, free = flow_logprobs(policy, prompts, flows)
        mean = logprobs.sum() / free.sum()
        optimizer.zero_grad()
        (-sign * mean).backward()
        optimizer.step()
    return mean.item()


def logprobs_of(policy: Policy, prompts: list[str], flows: list[tuple[int, ...]]) -> Tensor:
    with torch.no_grad():
        return flow_logprobs(policy, prompts, flows)[0]


@pytest.mark.parametrize("tied", [False, True])
def test_vocabulary_stage_then_two_adapters_then_exports(tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)  # of LoRA's matrices
    base = str(write_text_model(tmp_path / "base", tied))
    policy = Policy.from_text_model(small_codec(), base, BUDGET, lora_rank=4)
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert all("lora_" in name or "trainable_tokens" in name for name in trained)
    assert sum("trainable_tokens" in name for name in trained) == (1 if tied else 2)
    prompts, flows = flows_of(policy)
    first = train(policy, prompts, flows, 1)
    assert (
        train(policy, prompts, flows, 25) > first / 2
    )  # log-probabilities are negative: twice as likely a token
    learnt = logprobs_of(policy, prompts, flows)
    policy.export(tmp_path / "vocabulary")
    assert torch.equal(logprobs_of(Policy.load(tmp_path / "vocabulary"), prompts, flows), learnt)
    assert (tmp_path / "vocabulary" / "adapter_model.safetensors").stat().st_size < 150_000  # not the base

    policy, reference = load_pair(tmp_path / "vocabulary", tmp_path / "vocabulary", trainable=True)
    assert policy.model is reference.model
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name and ".policy." in name for name in trained)  # the new rows stay
    assert torch.equal(logprobs_of(policy, prompts, flows), learnt)
    logprobs_of(reference, prompts, flows)  # switches adapters and back
    assert [name for name, p in policy.named_parameters() if p.requires_grad] == trained
    train(policy, prompts, flows, 5, sign=-1.0)
    moved = logprobs_of(policy, prompts, flows)
    assert moved.sum() < learnt.sum() - 1
    assert torch.equal(logprobs_of(reference, prompts, flows), learnt)

    policy.export(tmp_path / "grpo" / "policy")
    reference.export(tmp_path / "grpo" / "reference")
    again = load_pair(tmp_path / "grpo" / "policy", tmp_path / "grpo" / "reference")
    assert torch.equal(logprobs_of(again[0], prompts, flows), moved)
    assert torch.equal(logprobs_of(again[1], prompts, flows), learnt)
    assert torch.equal(logprobs_of(Policy.load(tmp_path / "grpo" / "policy"), prompts, flows), moved)
    guided = [generate(again[0], PROMPTS, 2, seed=1, reference=again[1], guidance=w) for w in (0.0, 1.0)]
    alone = [generate(voice, PROMPTS, 2, seed=1) for voice in again[::-1]]
    assert [[r.flow_tokens for g in x for r in g] for x in guided] == [
        [r.flow_tokens for g in x for r in g] for x in alone
    ]


def test_a_gradient_reaches_only_rows_of_new_tokens(tmp_path: Path) -> None:
    policy = Policy.from_text_model(small_codec(), str(write_text_model(tmp_path)), BUDGET, lora_rank=2)
    old = policy.causal.get_input_embeddings().weight[: policy.tokenizer.text_size].clone()
    prompts, flows = flows_of(policy)
    train(policy, prompts, flows, 3)
    assert torch.equal(policy.causal.get_input_embeddings().weight[: policy.tokenizer.text_size], old)


@pytest.mark.parametrize("rank", [0, 2])
def test_sampler_and_training_agree_where_the_config_has_dropout(rank: int, tmp_path: Path) -> None:
    base = str(write_text_model(tmp_path, dropout=0.5))
    policy = Policy.from_text_model(small_codec(), base, BUDGET, lora_rank=rank)
    policy.train()
    groups = generate(policy, PROMPTS, 2, seed=0)
    prompts = [p for p in PROMPTS for _ in range(2)]
    logprobs, _, _ = flow_logprobs(policy, prompts, [r.flow_tokens for g in groups for r in g])
    for row, rollout in enumerate(r for g in groups for r in g):
        sampled = torch.tensor(rollout.logprobs)
        torch.testing.assert_close(logprobs[row, : len(sampled)], sampled, atol=1e-5, rtol=0)


def test_layers_are_computed_again_with_the_adapter_of_the_forward_pass(tmp_path: Path) -> None:
    start = Policy.from_text_model(
        small_codec(), str(write_text_model(tmp_path / "base")), BUDGET, lora_rank=2
    )
    start.export(tmp_path / "start")
    policy, reference = load_pair(tmp_path / "start", tmp_path / "start", trainable=True)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if ".policy." in name:
                parameter.normal_(std=0.3)
    policy.train()
    prompts, flows = flows_of(policy)
    batch = FlowBatch.build(policy, prompts, flows)
    trained = [p for p in policy.parameters() if p.requires_grad]
    found: list[list[Tensor]] = []
    for checkpointing in (False, True):
        cast(Any, policy.model).set_adapter(
            reference.adapter
        )  # the policy's is active while it is asked, and not afterwards
        for parameter in trained:
            parameter.requires_grad_(True)
        policy.zero_grad()
        score_flows(policy, batch, gradient_checkpointing=checkpointing).logprobs.sum().backward()
        found.append([p.grad.clone() for p in trained if p.grad is not None])
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)
    assert len(found[0]) == len(trained)
    assert all(gradient.any() for gradient in found[0])


def test_a_whole_text_model_trains_and_exports(tmp_path: Path) -> None:
    base = str(write_text_model(tmp_path / "base"))
    policy = Policy.from_text_model(small_codec(), base, BUDGET, lora_rank=0)
    assert all(p.requires_grad for p in policy.parameters())
    prompts, flows = flows_of(policy)
    policy.export(tmp_path / "export")
    loaded = Policy.load(tmp_path / "export")
    assert torch.equal(logprobs_of(loaded, prompts, flows), logprobs_of(policy, prompts, flows))


def test_bfloat16_trains_and_gives_float32_logprobs(tmp_path: Path) -> None:
    base = str(write_text_model(tmp_path / "base"))
    policy = Policy.from_text_model(small_codec(), base, BUDGET, lora_rank=4, dtype="bfloat16")
    prompts, flows = flows_of(policy)
    assert logprobs_of(policy, prompts, flows).dtype == torch.float32
    first = train(policy, prompts, flows, 1)
    assert train(policy, prompts, flows, 15) > first
    policy.export(tmp_path / "export")
    loaded = Policy.load(tmp_path / "export")
    assert loaded.causal.dtype == torch.bfloat16
    assert torch.equal(logprobs_of(loaded, prompts, flows), logprobs_of(policy, prompts, flows))


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="nowhere"):
        Policy.from_text_model(small_codec(), str(tmp_path / "nowhere"), BUDGET)


def test_a_pair_of_different_vocabularies_is_refused(tmp_path: Path) -> None:
    from tests.policy.world import small_policy

    base = str(write_text_model(tmp_path / "base"))
    Policy.from_text_model(small_codec(), base, BUDGET, lora_rank=2).export(tmp_path / "lora")
    small_policy().export(tmp_path / "small")
    with pytest.raises(PolicyError, match="different vocabularies"):
        load_pair(tmp_path / "lora", tmp_path / "small")
