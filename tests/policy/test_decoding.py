"""The decoding engine on plain text, against whole uncached forward passes of Hugging Face models."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from flowsmith.policy import PolicyError
from flowsmith.policy.decoding import Completion, sample_text

PROMPTS = [[5, 9, 2], [11, 3, 8, 1, 7, 30, 12], [4], [6, 6, 6, 6]]  # ragged
SHAPE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 160,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "grouped": LlamaConfig(**SHAPE | {"num_key_value_heads": 2}),
    "dropout": LlamaConfig(**SHAPE | {"attention_dropout": 0.5}),
    "qwen2": Qwen2Config(**SHAPE | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3": Qwen3Config(**SHAPE | {"num_key_value_heads": 1, "head_dim": 16}),
    "mistral": MistralConfig(**SHAPE | {"num_key_value_heads": 2, "sliding_window": 160}),
    "gpt2": GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=160, initializer_range=0.3),
}


def model_of(name: str, dtype: torch.dtype = torch.double) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(CONFIGS[name]).to(dtype)


def uncached(model: Any, prompt: list[int], completion: Completion, temperature: float = 1.0) -> Tensor:
    """Log-probabilities by one forward pass over one sequence, without cache, padding or our attention."""
    ids = torch.tensor([prompt + list(completion.tokens)])
    with torch.no_grad():
        logits = model.eval()(ids, use_cache=False).logits[0, len(prompt) - 1 : -1] / temperature
    told: Tensor = logits.log_softmax(-1)[range(len(completion.tokens)), list(completion.tokens)]
    return told


def tokens(groups: list[list[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[completion.tokens for completion in group] for group in groups]


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_is_uncached(name: str) -> None:
    """Ragged prompts, completions that end at different times, a room that grows twice."""
    model = model_of(name)
    groups = sample_text(model, PROMPTS, 3, 140, seed=0, temperature=1.3, eos=3)
    lengths = [len(completion.tokens) for group in groups for completion in group]
    assert min(lengths) < max(lengths)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            told = torch.tensor(completion.logprobs, dtype=torch.double)
            torch.testing.assert_close(told, uncached(model, prompt, completion, 1.3), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["grouped", "dropout", "gpt2"])
def test_single_precision_agrees_to_1e_5(name: str) -> None:
    model = model_of(name, torch.float32)
    model.train()
    for prompt, group in zip(PROMPTS, sample_text(model, PROMPTS, 4, 40, seed=1), strict=True):
        assert model.training
        for completion in group:
            told = torch.tensor(completion.logprobs)
            torch.testing.assert_close(told, uncached(model, prompt, completion), atol=1e-5, rtol=0)
            model.train()


@pytest.mark.parametrize("batch_size", [1, 5, 7, 12, 64])
def test_batch_split_changes_no_token(batch_size: int) -> None:
    model = model_of("grouped")
    whole = sample_text(model, PROMPTS, 5, 30, seed=2, eos=3, batch_size=1000)
    part = sample_text(model, PROMPTS, 5, 30, seed=2, eos=3, batch_size=batch_size)
    assert tokens(part) == tokens(whole)


def test_eos_ends_and_only_eos() -> None:
    groups = sample_text(model_of("llama"), PROMPTS, 8, 25, seed=0, eos=3)
    every = [completion for group in groups for completion in group]
    assert {c.finished for c in every} == {True, False}
    for completion in every:
        assert 3 not in completion.tokens[:-1]
        assert completion.finished == (completion.tokens[-1] == 3)
        assert completion.finished or len(completion.tokens) == 25
    exact = sample_text(model_of("llama"), PROMPTS, 8, 25, seed=0)
    assert {len(completion.tokens) for group in exact for completion in group} == {25}
    assert not any(completion.finished for group in exact for completion in group)
    for short, long in zip(every, [c for group in exact for c in group], strict=True):
        assert long.tokens[: len(short.tokens)] == short.tokens  # until the end, nothing differs


def test_frequencies_are_the_model_s() -> None:
    model = model_of("llama")
    (group,) = sample_text(model, PROMPTS[:1], 4000, 1, seed=0, batch_size=4000)
    with torch.no_grad():
        expected = model(torch.tensor(PROMPTS[:1])).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([c.tokens[0] for c in group]), minlength=40) / 4000
    # A count's standard deviation is below 0.008; five of them.
    assert (counts - expected).abs().max() < 0.04
    assert expected.max() < 0.9  # otherwise little was tried


def test_a_peft_model_speaks_with_its_active_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    model = model_of("grouped")
    plain = tokens(sample_text(model, PROMPTS, 2, 10, seed=0))
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    assert tokens(sample_text(wrapped, PROMPTS, 2, 10, seed=0)) == plain  # B is 0
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 1)
    groups = sample_text(wrapped, PROMPTS, 2, 10, seed=0)
    assert tokens(groups) != plain
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            told = torch.tensor(completion.logprobs, dtype=torch.double)
            torch.testing.assert_close(told, uncached(wrapped, prompt, completion), atol=1e-5, rtol=0)


def test_under_autocast() -> None:
    """Positions are turned in single precision, values are bfloat16: attention must bear both."""
    model = model_of("grouped", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        groups = sample_text(model, PROMPTS, 2, 20, seed=0)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            told = torch.tensor(completion.logprobs)
            torch.testing.assert_close(told, uncached(model, prompt, completion), atol=0.2, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_ragged_reading_gives_the_logits_of_whole_sequences(data: st.DataObject) -> None:
    """Sequences that read runs of any length, stop at any time, and are given up in between."""
    import numpy as np

    from flowsmith.policy.decoding.attention import decoding_attention
    from flowsmith.policy.decoding.decoder import Decoder
    from flowsmith.policy.decoding.network import text_network

    model = model_of("grouped").eval()
    number = st.integers(1, 39)
    prompts = data.draw(st.lists(st.lists(number, min_size=1, max_size=6), min_size=1, max_size=3))
    samples = data.draw(st.integers(1, 3))
    rows = [list(prompt) for prompt in prompts for _ in range(samples)]
    active = list(range(len(rows)))
    with torch.no_grad(), decoding_attention(model):
        decoder = Decoder(text_network(model), prompts, samples, 80)
        logits = decoder.logits[0]
        for _ in range(data.draw(st.integers(1, 4))):
            chunks = [data.draw(st.lists(number, min_size=1, max_size=20)) for _ in active]
            ids = torch.tensor([token for chunk in chunks for token in chunk])
            logits = decoder.read(np.array(active), ids, np.array([len(chunk) for chunk in chunks]))[0]
            for row, chunk in zip(active, chunks, strict=True):
                rows[row] += chunk
            kept = sorted(data.draw(st.sets(st.sampled_from(range(len(active))), min_size=1)))
            logits, before = logits[kept], active
            active = [before[index] for index in kept]
    for row, got in zip(active, logits, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([rows[row]]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)


def test_the_model_is_left_as_it_was() -> None:
    model = model_of("llama")
    ids = torch.tensor(PROMPTS[:1])
    before = model(ids).logits
    for training in (True, False):
        model.train(training)
        sample_text(model, PROMPTS, 2, 5, seed=0)
        assert model.training is training
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(PolicyError, match="1 to 155"):
        sample_text(model, [[1] * 160], 1, 5, seed=0)
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "at least 1 sample"),
        ({"max_new_tokens": 0}, "at least 1 token"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"sample_ids": ["a"]}, "one each"),
        ({"prompts": [[]]}, "prompt 0 has 0 tokens"),
        ({"prompts": [[1], [1] * 157]}, "prompt 1 has 157 tokens"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"prompts": PROMPTS, "samples": 1, "max_new_tokens": 4, "seed": 0} | changes
    with pytest.raises(PolicyError, match=message):
        sample_text(model_of("llama"), **given)


def test_models_that_cannot_be_decoded_are_named() -> None:
    from transformers import BloomConfig, CohereConfig, Gemma2Config

    def built(config: Any) -> Any:
        return AutoModelForCausalLM.from_config(config)

    window = MistralConfig(**SHAPE | {"sliding_window": 8, "num_key_value_heads": 2})
    with pytest.raises(PolicyError, match="window of 8 tokens"):
        sample_text(built(window), PROMPTS, 1, 10, seed=0)
    bloom = BloomConfig(vocab_size=40, hidden_size=32, n_layer=1, n_head=2)
    with pytest.raises(PolicyError, match=r"Bloom.*AttentionInterface"):
        sample_text(built(bloom), PROMPTS, 1, 10, seed=0)
    with pytest.raises(PolicyError, match="logit_scale rescales"):
        sample_text(built(CohereConfig(**SHAPE)), PROMPTS, 1, 10, seed=0)
    soft = Gemma2Config(**SHAPE | {"head_dim": 8, "final_logit_softcapping": None, "num_key_value_heads": 2})
    with pytest.raises(PolicyError, match="softcap"):
        sample_text(built(soft), PROMPTS, 1, 10, seed=0)


def test_logits_that_are_no_numbers_are_told() -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.lm_head.weight[0] = torch.nan
    with pytest.raises(PolicyError, match="not finite"):
        sample_text(model, PROMPTS, 1, 5, seed=0)
