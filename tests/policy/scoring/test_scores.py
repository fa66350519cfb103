"""Scores of ragged batches with shared prompts, against Hugging Face's forward pass of one sequence at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.policy.scoring import CompletionBatch, score_text
from flowsmith.policy.scoring.hidden_states import hidden_states
from flowsmith.policy.scoring.prefix_attention import shares_prompts
from tests.policy.scoring.models import CONFIGS, SHARING, ragged, tiny_model


def batch() -> CompletionBatch:
    return CompletionBatch.of_text(*ragged())


def one_by_one(model: Any, temperature: float = 1.0) -> tuple[list[Tensor], list[Tensor]]:
    logprobs, entropies = [], []
    for prompt, completion in zip(*ragged(), strict=True):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        whole = (
            (logits.float() if logits.dtype == torch.bfloat16 else logits).div(temperature).log_softmax(-1)
        )
        logprobs.append(whole[torch.arange(len(completion)), completion])
        entropies.append(-(whole.exp() * whole).sum(-1))
    return logprobs, entropies


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def weighted(logprobs: Tensor, entropy: Tensor) -> Tensor:
    """Return a loss to which every token contributes differently."""
    places = torch.arange(logprobs.numel(), dtype=logprobs.dtype).view_as(logprobs)
    return (logprobs * (places * 0.7).sin()).sum() + (entropy * (places * 0.3).cos()).sum()


def expected_gradients(model: Any, temperature: float = 1.0) -> dict[str, Tensor]:
    logprobs, entropies = (
        torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in one_by_one(model, temperature)
    )
    return gradients(model, weighted(logprobs, entropies))


def assert_equal(mine: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", CONFIGS)
def test_architectures_in_double_precision(kind: str) -> None:
    model = tiny_model(kind)
    assert shares_prompts(model) == (kind in SHARING)
    tolerance = (
        1e-9 if kind in SHARING else 1e-5
    )  # the others compute a part in float32 whatever they are given
    scores = score_text(model, batch(), 1.3)
    for row, (logprobs, entropy) in enumerate(zip(*one_by_one(model, 1.3), strict=True)):
        torch.testing.assert_close(scores.logprobs[row, : len(logprobs)], logprobs, atol=tolerance, rtol=0)
        torch.testing.assert_close(scores.entropy[row, : len(entropy)], entropy, atol=tolerance, rtol=0)
    assert not scores.logprobs[~scores.free].any()
    assert scores.free.sum() == 31
    found = gradients(model, weighted(scores.logprobs, scores.entropy))
    assert_equal(found, expected_gradients(model, 1.3), tolerance)


def test_lora_in_double_precision() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model: Any = get_peft_model(tiny_model("llama"), config).double()
    scores = score_text(model, batch())
    found = gradients(model, weighted(scores.logprobs, scores.entropy))
    assert all("lora" in name for name in found)
    assert_equal(found, expected_gradients(model), 1e-9)


def test_single_precision() -> None:
    model = tiny_model("llama", torch.float32)
    scores = score_text(model, batch())
    for row, logprobs in enumerate(one_by_one(model)[0]):
        torch.testing.assert_close(scores.logprobs[row, : len(logprobs)], logprobs, atol=1e-5, rtol=0)


def test_bfloat16_autocast_differs_no_more_than_hugging_faces() -> None:
    model = tiny_model("llama", torch.float32)
    exact = torch.cat(one_by_one(model)[0])
    with torch.autocast("cpu", torch.bfloat16):
        scores = score_text(model, batch(), gradient_checkpointing=True)
        theirs = torch.cat(one_by_one(model)[0])
    mine = scores.logprobs[scores.free]
    assert mine.dtype == torch.float32
    assert (mine - exact).abs().mean() < 2 * (theirs - exact).abs().mean()
    found = gradients(model, weighted(scores.logprobs, scores.entropy))
    plain = expected_gradients(model)
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(value.flatten(), plain[name].flatten(), 0) > 0.98, name


@contextmanager
def saved_elements() -> Iterator[list[int]]:
    """Count what is kept for the backward pass."""
    seen: dict[int, int] = {}
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            seen[tensor.data_ptr()] = tensor.numel()
            total[0] = sum(seen.values())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom"])
def test_gradient_checkpointing_keeps_less_and_gives_the_same(kind: str) -> None:
    model = tiny_model(kind)
    results, kept = [], []
    for on in (False, True):
        with saved_elements() as total:
            hidden = hidden_states(model, batch().packed, on)
        kept.append(total[0])
        results.append(gradients(model, hidden.sin().sum()))
    assert kept[1] < kept[0] / 5
    assert_equal(results[1], results[0], 1e-12)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert model.config._attn_implementation != "flowsmith_prefix"


def test_a_prompt_is_computed_once_and_padding_never() -> None:
    model = tiny_model("llama")
    counted: list[int] = []
    model.model.layers[0].mlp.register_forward_hook(lambda _, __, out: counted.append(out.shape[:-1].numel()))
    score_text(model, batch())
    _, completions = ragged()
    assert counted == [6 + 1 + 3 + sum(map(len, completions))]


def test_other_forward_passes_attend_as_before() -> None:
    model = tiny_model("llama")
    ids = torch.tensor([[1, 2, 3]])
    before = model(ids).logits
    score_text(model, batch())
    assert torch.equal(model(ids).logits, before)
