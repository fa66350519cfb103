from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ExecutionError, ModelLibrary
from flowsmith.execution.text import TextEncoder, Tower
from flowsmith.execution.text_chunks import MAX_CHUNKS

LENGTH = 32


@pytest.fixture(scope="module")
def encoder(models: Path) -> TextEncoder:
    text = ModelLibrary(models).checkpoint("tiny_a").text
    assert text is not None
    return text


@pytest.fixture(scope="module")
def tower(encoder: TextEncoder) -> Tower:
    return encoder.towers["l"]


def reference(encoder: TextEncoder, words: str) -> Tensor:
    """Encode one short text straight through the model, as the tokenizer itself pads it."""
    tower: Any = encoder.towers["l"]
    ids = tower.tokenizer(words, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids
    with torch.no_grad():
        states: Tensor = tower.model(ids).last_hidden_state[0]
    return states


def test_plain_text_is_the_models_normed_output(encoder: TextEncoder) -> None:
    with torch.no_grad():
        got = [encoding.states for encoding in encoder.encode(["red stars", ""])]
    torch.testing.assert_close(got[0], reference(encoder, "red stars"))
    torch.testing.assert_close(got[1], reference(encoder, ""))
    assert got[0].mean(-1).abs().max() < 1e-5  # a final layer norm with fresh scale and shift


@pytest.mark.parametrize("weight", [1.3, 0.5, 0.0, -1.0])
def test_weight_moves_from_the_empty_text(encoder: TextEncoder, weight: float) -> None:
    with torch.no_grad():
        got = encoder.encode([f"r (s:{weight}) t"])[0].states
    plain, empty = reference(encoder, "r s t"), reference(encoder, "")
    expected = plain.clone()
    expected[2] = empty[2] + weight * (plain[2] - empty[2])  # start, r, s
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert (got[2] - plain[2]).abs().max() > 0.01


def test_long_text_is_cut_into_chunks(encoder: TextEncoder, tower: Tower) -> None:
    letters = " ".join("abcdefghijklmnopqrstuvwxyz" * 2)  # 52 tokens, 30 fit a chunk
    first, second = tower.chunks(letters)
    start, end = tower.framing.start, tower.framing.end
    assert [len(first.ids), len(second.ids)] == [LENGTH, LENGTH]
    assert (first.ids[0], first.ids[-1], second.ids[0], second.ids[23]) == (start, end, start, end)
    whole = tower.tokenizer.encode(letters, add_special_tokens=False)
    assert [*first.ids[1:-1], *second.ids[1:23]] == whole
    with torch.no_grad():
        both = encoder.encode([letters])[0].states
    assert both.shape == (2 * LENGTH, 32)
    torch.testing.assert_close(both[:LENGTH], reference(encoder, letters[:59]))


def test_short_segment_is_not_torn_by_a_chunks_end(tower: Tower) -> None:
    first, second = tower.chunks(" ".join("a" * 28) + "(b c d:1.5)")
    end = tower.framing.end
    assert first.ids[29:] == (end,) * 3
    assert second.weights[1:4] == (1.5, 1.5, 1.5)
    exact = tower.chunks(" ".join("a" * 28) + "(b c:1.5)")
    assert len(exact) == 1  # fills the chunk to the last place


def test_endless_prompt_is_refused(tower: Tower) -> None:
    assert len(tower.chunks("a " * (30 * MAX_CHUNKS))) == MAX_CHUNKS
    with pytest.raises(ExecutionError, match="too long"):
        tower.chunks("a " * (30 * MAX_CHUNKS + 1))


@pytest.mark.parametrize(
    "text", ["<|endoftext|><|startoftext|>", "\ud800 broken", "日本 🎨\0\n", "(((", "embedding:x"]
)
def test_any_text_encodes(encoder: TextEncoder, text: str) -> None:
    with torch.no_grad():
        got = encoder.encode([text])[0].states
    assert got.shape == (LENGTH, 32)
    assert got.isfinite().all()


def test_texts_together_are_as_alone(encoder: TextEncoder) -> None:
    texts = ["red", "", "(red:1.4) star", " ".join("abc" * 20), "red"]
    with torch.no_grad():
        together = encoder.encode(texts)
        for text, got in zip(texts, together, strict=True):
            torch.testing.assert_close(got.states, encoder.encode([text])[0].states, rtol=1e-5, atol=1e-6)
