"""Any text has a spelling that reads back to it, and no spelling is anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.flows import CodecError
from flowsmith.flows.wide.spelling import Spelling
from tests.flows.wide.small_world import spelling

SPELLING = spelling()


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    assert SPELLING.read(SPELLING.spell(text)) == text


def test_every_byte_is_a_piece_and_frequent_words_are_one() -> None:
    assert 256 < len(SPELLING.pieces) <= 280
    assert all(len(piece) == 1 for piece in SPELLING.pieces[:256])
    assert [SPELLING.pieces[place] for place in SPELLING.spell("a red")] == ["a", "Ġred"]
    assert SPELLING.spell("") == []


def test_the_same_texts_give_the_same_pieces_in_any_order() -> None:
    texts = ["a red fox", "a red house", "two red foxes"]
    assert Spelling.train(texts, 270).merges == Spelling.train(texts[::-1], 270).merges


def test_spellings_of_no_text_are_refused() -> None:
    half = SPELLING.spell("é")[:1]
    with pytest.raises(CodecError, match="spells no text"):
        SPELLING.read(half)
    with pytest.raises(CodecError, match="what is no piece yet"):
        Spelling((("ab", "c"),))
    with pytest.raises(CodecError, match="use 256 or more"):
        Spelling.train(["a"], 100)
