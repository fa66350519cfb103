"""Texts in pieces: a byte-level BPE, so that any text has a spelling and a spelling has one text.

Its pieces are tokens of their own. A text that looks like a token ("KSampler", "ref:0", "end") is spelt in pieces
like any other and becomes no control token.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from json import loads
from typing import TYPE_CHECKING

from flowsmith.flows.language import CodecError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Merges = tuple[tuple[str, str], ...]
_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(256 + place): byte for place, byte in enumerate(_OTHERS)
}


class Spelling:
    """Spells texts.

    Attributes:
        pieces: A byte each (as the letter that byte-level BPE writes for it), then what the merges put together.
    """

    def __init__(self, merges: Merges) -> None:
        """Take pairs of pieces, the most frequent first.

        Raises:
            CodecError: A pair holds what is no piece yet.
        """
        pieces = dict.fromkeys(sorted(_BYTES))
        for left, right in merges:
            if left not in pieces or right not in pieces:
                raise CodecError(
                    f"merges: ({left!r}, {right!r}) merges what is no piece yet; train them anew"
                )
            pieces[left + right] = None
        self.pieces = tuple(pieces)
        self._merges = merges

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 1024) -> "Spelling":
        """Learn pieces from texts, whatever their order; at most ``size`` of them, 256 or more."""
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        if size < len(_BYTES):
            raise CodecError(f"size={size}: each byte is a piece of its own; use 256 or more")
        model = Tokenizer(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, special_tokens=[], show_progress=False,
            initial_alphabet=sorted(_BYTES),
        )  # fmt: skip
        model.train_from_iterator(sorted(set(texts)), trainer)
        pairs = loads(model.to_str())["model"]["merges"]
        return cls(tuple((left, right) for left, right in pairs))

    @property
    def merges(self) -> Merges:
        """The pairs that it was made from."""
        return self._merges

    def spell(self, text: str) -> list[int]:
        """Return places of pieces; none for the empty text."""
        ids: list[int] = self._model.encode(text).ids
        return ids

    def read(self, places: Iterable[int]) -> str:
        """Return the text that pieces spell.

        Raises:
            CodecError: They spell no UTF-8.
        """
        spelt = bytes(_BYTES[letter] for place in places for letter in self.pieces[place])
        try:
            return spelt.decode()
        except UnicodeDecodeError as error:
            raise CodecError(f"tokens: a literal spells no text ({error}); spell it in UTF-8") from error

    @cached_property
    def _model(self) -> "Tokenizer":
        from tokenizers import Tokenizer, models, pre_tokenizers

        vocabulary = {piece: place for place, piece in enumerate(self.pieces)}
        model = Tokenizer(models.BPE(vocab=vocabulary, merges=_firsts(self._merges)))
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return model


def _firsts(merges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop pairs that stand again: a merge has one rank."""
    return list(dict.fromkeys(merges))
