"""No text that a user types can become a control or flow token."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsmith.policy import FlowTokenizer, PolicyError
from flowsmith.policy.build import text_tokenizer
from tests.policy.world import PROMPTS, small_codec, small_tokenizer, write_text_model

HOSTILE = [
    "<flow>",
    "KSampler.steps=20",
    "ref:0",
    "end",
    "<|begin|>",
    "<|end|> KSampler",
    "<s></s>",
    "\x00",
    "[PAD]",
    "",
]


def only_text(tokenizer: FlowTokenizer, prompt: str, controls: set[int] = frozenset()) -> bool:  # type: ignore[assignment]
    first, *text, last = tokenizer.encode_prompt(prompt)
    inside = all(0 <= token < tokenizer.text_size and token not in controls for token in text)
    return inside and first == tokenizer.bos and last == tokenizer.flow


@pytest.mark.parametrize("prompt", [*HOSTILE, *small_codec().vocabulary])
def test_control_text_is_spelt_out(prompt: str) -> None:
    tokenizer = small_tokenizer()
    assert only_text(tokenizer, prompt)
    assert tokenizer.text.decode(tokenizer.encode_prompt(prompt)[1:-1]).lstrip() == prompt.lstrip()


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_text(prompt: str) -> None:
    assert only_text(small_tokenizer(), prompt)


@pytest.mark.parametrize("prompt", HOSTILE)
def test_a_hub_tokenizer_loses_its_special_tokens(prompt: str, tmp_path: Path) -> None:
    tokenizer = text_tokenizer(str(write_text_model(tmp_path)), 320, small_codec())
    assert tokenizer.bos == 0
    assert only_text(tokenizer, prompt, controls={0, 1})


def test_ids_are_laid_out_without_gaps_or_overlap() -> None:
    tokenizer = small_tokenizer()
    controls = [tokenizer.bos, tokenizer.flow, tokenizer.pad]
    assert controls == list(range(tokenizer.text_size, tokenizer.text_size + 3))
    assert tokenizer.flow_offset == tokenizer.text_size + 3
    assert tokenizer.size == tokenizer.flow_offset + small_codec().size


def test_training_does_not_depend_on_order_or_repetition() -> None:
    again = FlowTokenizer.from_captions([*reversed(PROMPTS), *PROMPTS], small_codec(), 320)
    assert json.loads(again.text.to_str()) == json.loads(small_tokenizer().text.to_str())


def test_captions_get_shorter_by_training() -> None:
    untrained = FlowTokenizer.from_captions([], small_codec(), 256)
    assert len(small_tokenizer().encode_prompt(PROMPTS[0])) < len(untrained.encode_prompt(PROMPTS[0])) / 1.5


def test_save_and_load(tmp_path: Path) -> None:
    small_tokenizer().save(tmp_path)
    loaded = FlowTokenizer.load(tmp_path)
    assert [loaded.encode_prompt(p) for p in PROMPTS] == [small_tokenizer().encode_prompt(p) for p in PROMPTS]
    assert (loaded.flow_offset, loaded.size, loaded.pad) == (
        small_tokenizer().flow_offset, small_tokenizer().size, small_tokenizer().pad
    )  # fmt: skip


@pytest.mark.parametrize("broken", ["tokenizer.json", "vocabulary.json"])
def test_a_broken_file_is_named(broken: str, tmp_path: Path) -> None:
    small_tokenizer().save(tmp_path)
    (tmp_path / broken).write_text("{")
    with pytest.raises(PolicyError, match=str(tmp_path)):
        FlowTokenizer.load(tmp_path)


def test_fewer_tokens_than_bytes_are_refused() -> None:
    with pytest.raises(PolicyError, match="256"):
        FlowTokenizer.from_captions(PROMPTS, small_codec(), 100)
