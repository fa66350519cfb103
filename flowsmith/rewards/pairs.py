"""From (prompt, flow) to one token sequence: ``start, flow tokens, separator, prompt tokens, end``.

The flow stands first so that its tokens have the same places whatever the length of the prompt. Flow tokens are ids
beyond the text vocabulary and are never looked up by a string, so no prompt can contain one.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from flowsmith.errors import FlowsmithError
from flowsmith.flows import Codec, Flow


class RewardsError(FlowsmithError):
    """A surrogate cannot be built, read or asked."""


@dataclass(frozen=True)
class SpecialIds:
    """Ids with a role of their own.

    Attributes:
        start: Begins a sequence.
        separator: Between flow and prompt, and at the end.
        padding: Fills a batch.
        flow: Id of the codec's first token; all ids from here on are flow tokens.
    """

    start: int
    separator: int
    padding: int
    flow: int


class PairTokenizer:
    """Encode pairs for one codec.

    Args:
        text: Tokenizer of prompts.
        codec: Codec of flows.
        ids: Ids with a role.
        max_tokens: Longest sequence; a longer prompt is cut, a longer flow is an error.
    """

    def __init__(self, text: Tokenizer, codec: Codec, ids: SpecialIds, max_tokens: int) -> None:
        self.text = text
        self.text.encode_special_tokens = True  # "[SEP]" in a prompt is five characters
        self.text.no_truncation()
        self.text.no_padding()
        self.codec = codec
        self.ids = ids
        self.max_tokens = max_tokens
        self._prompts: dict[str, list[int]] = {}
        self._flows: dict[str, list[int]] = {}

    @classmethod
    def from_captions(
        cls, captions: Sequence[str], codec: Codec, size: int = 2000, max_tokens: int = 256
    ) -> Self:
        """Train a byte-level BPE of at most ``size`` tokens on captions; no text is outside of it."""
        text = Tokenizer(models.BPE())
        text.normalizer = normalizers.Lowercase()
        text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        text.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        text.train_from_iterator(sorted(captions), trainer)
        n = text.get_vocab_size()
        return cls(text, codec, SpecialIds(start=n, separator=n + 1, padding=n + 2, flow=n + 3), max_tokens)

    @classmethod
    def from_pretrained(cls, path: str, codec: Codec, text_size: int, max_tokens: int) -> Self:
        """Take the tokenizer of a pretrained encoder (folder or hub id) whose vocabulary has ``text_size`` rows."""
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(path)
        roles = (loaded.cls_token_id, loaded.sep_token_id, loaded.pad_token_id)
        if not loaded.is_fast or None in roles:
            raise RewardsError(
                f"encoder={path!r}: its tokenizer has no Rust backend or lacks one of the start, separator and "
                "padding tokens; name an encoder of the BERT family, such as answerdotai/ModernBERT-base"
            )
        return cls(loaded.backend_tokenizer, codec, SpecialIds(*roles, flow=text_size), max_tokens)

    @property
    def size(self) -> int:
        """Number of ids, flow tokens included."""
        return self.ids.flow + int(self.codec.size)

    def encode(self, prompt: str, flow: Flow) -> list[int]:
        """Return the ids of a pair.

        Raises:
            RewardsError: The flow alone is longer than ``max_tokens``.
        """
        tokens = self._flows.get(flow.key)
        if tokens is None:
            tokens = [self.ids.flow + token for token in self.codec.encode(flow)]
            self._flows[flow.key] = tokens
        words = self._prompts.get(prompt)
        if words is None:
            words = self._prompts[prompt] = self.text.encode(prompt, add_special_tokens=False).ids
        room = self.max_tokens - len(tokens) - 3
        if room < 0:
            raise RewardsError(
                f"a flow of {len(tokens)} tokens does not fit in max_tokens={self.max_tokens}; "
                "train the ensemble with a larger max_tokens"
            )
        return [self.ids.start, *tokens, self.ids.separator, *words[:room], self.ids.separator]

    def batch(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Return sequences padded at the right to the longest: ids [n, tokens]."""
        rows = [torch.tensor(ids, dtype=torch.long) for ids in sequences]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.ids.padding)

    def save(self, folder: Path) -> None:
        """Write tokenizer, codec and ids into a folder."""
        self.text.save(str(folder / "tokenizer.json"))
        self.codec.save(folder / "codec")
        content = {"ids": asdict(self.ids), "max_tokens": self.max_tokens}
        (folder / "pairs.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        content = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
        text = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return cls(text, Codec.load(folder / "codec"), SpecialIds(**content["ids"]), content["max_tokens"])
