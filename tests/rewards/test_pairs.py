from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.rewards.pairs import PairTokenizer, RewardsError
from tests.flows_for_tests import some_flows
from tests.rewards.world import codec, scenes

CAPTIONS = [scene.text for scene in scenes(60)]
TOKENIZER = PairTokenizer.from_captions(CAPTIONS, codec(), size=400)
FLOW = some_flows(1)[0]


def prompt_ids(tokenizer: PairTokenizer, prompt: str) -> list[int]:
    ids = tokenizer.encode(prompt, FLOW)
    return ids[ids.index(tokenizer.ids.separator) + 1 : -1]


def test_layout() -> None:
    ids, roles = TOKENIZER.encode("a red star", FLOW), TOKENIZER.ids
    flow = [roles.flow + token for token in codec().encode(FLOW)]
    assert ids[: len(flow) + 2] == [roles.start, *flow, roles.separator]
    assert ids[-1] == roles.separator
    assert TOKENIZER.text.decode(prompt_ids(TOKENIZER, "a red star")).strip() == "a red star"
    assert TOKENIZER.size == roles.flow + codec().size


pieces = st.sampled_from(
    [*codec().vocabulary, "[SEP]", "[CLS]", "[PAD]", "<s>", "</s>", "<|endoftext|>", "{prompt}"]
)


@given(st.lists(st.one_of(pieces, st.text(max_size=8)), max_size=6).map(" ".join))
def test_no_prompt_holds_a_token_with_a_role(prompt: str) -> None:
    ids = prompt_ids(TOKENIZER, prompt)
    assert all(0 <= token < TOKENIZER.ids.start for token in ids)


@given(st.text(max_size=30))
def test_no_text_is_outside_of_the_tokenizer(prompt: str) -> None:
    decoded = TOKENIZER.text.decode(prompt_ids(TOKENIZER, prompt))
    assert decoded.removeprefix(" ") == prompt.lower() or decoded == prompt.lower()


def test_long_prompt_is_cut_and_long_flow_refused() -> None:
    length = len(codec().encode(FLOW))
    short = PairTokenizer(TOKENIZER.text, codec(), TOKENIZER.ids, max_tokens=length + 5)
    ids = short.encode("red star " * 50, FLOW)
    assert len(ids) == length + 5
    assert ids[-1] == short.ids.separator
    with pytest.raises(RewardsError, match=f"flow of {length} tokens .* max_tokens={length}"):
        PairTokenizer(TOKENIZER.text, codec(), TOKENIZER.ids, max_tokens=length).encode("a", FLOW)


def test_batch_pads_at_the_right() -> None:
    assert TOKENIZER.batch([[1, 2, 3], [4]]).tolist() == [
        [1, 2, 3],
        [4, TOKENIZER.ids.padding, TOKENIZER.ids.padding],
    ]


def test_saved_and_loaded_encodes_the_same(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    loaded = PairTokenizer.load(tmp_path)
    for prompt in [*CAPTIONS[:5], "[SEP] KSampler é 漢"]:
        assert loaded.encode(prompt, FLOW) == TOKENIZER.encode(prompt, FLOW)
    assert (loaded.ids, loaded.max_tokens) == (TOKENIZER.ids, TOKENIZER.max_tokens)


def test_training_does_not_depend_on_the_order_of_captions() -> None:
    other = PairTokenizer.from_captions(CAPTIONS[::-1], codec(), size=400)
    assert other.text.to_str() == TOKENIZER.text.to_str()
