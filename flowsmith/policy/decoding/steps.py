"""The two kinds of forward pass: whole prompts first, then a few tokens for every row that goes on."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowsmith.policy.decoding.attention import attend, causal, merge
from flowsmith.policy.decoding.cache import Cache, Layer
from flowsmith.policy.decoding.ragged import Ints, Ragged, offsets


class Prefill:
    """Whole prompts, each seeing itself alone."""

    def __init__(self, cache: Cache, lengths: Ints, device: torch.device) -> None:
        """Be about to read prompts of these lengths into the cache."""
        self.reach = int(lengths.max())
        self._cache, self._prompts = cache, Ragged(lengths, device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Compute causal attention within each prompt and keep its keys and values."""
        keys, values = self._prompts.pad(key), self._prompts.pad(value)
        self._cache.open(layer, keys, values)
        return self._prompts.unpad(causal(self._prompts.pad(query), keys, values, scale), len(query))


class Continuation:
    """Some tokens for each row, which see the row's prompt, what the row read before, and each other.

    The last tokens of all rows come first, then what some rows read before theirs: the first part is even, and
    few rows have a second, so that attention pads little.
    """

    def __init__(
        self, cache: Cache, prompts: Ints, prompt_of: Ints, before: Ints, counts: Ints, device: torch.device
    ) -> None:
        """Be about to read.

        Args:
            cache: Holds the prompts, and what the rows read before.
            prompts: Lengths of the prompts.
            prompt_of: Prompt of each row, ascending.
            before: Tokens that each row read before.
            counts: Tokens that each row reads now, 0 or more.
            device: Of the model.
        """
        after = before + counts
        self.reach = int((prompts[prompt_of] + after).max())
        cache.make_room(int(after.max()))
        self._cache, self._device = cache, device
        last, earlier = np.minimum(counts, 1), np.maximum(counts - 1, 0)
        self._parts = [_Part(cache, prompts, prompt_of, after - last, last, device)]
        if earlier.any():
            self._parts.append(_Part(cache, prompts, prompt_of, before, earlier, device))
        rows = np.concatenate([np.flatnonzero(last), np.repeat(np.arange(len(counts)), earlier)])
        slots = np.concatenate([(after - 1)[last > 0], np.repeat(before, earlier) + offsets(earlier)])
        self.positions: Ints = prompts[prompt_of[rows]] + slots
        self._slot = int(slots[0]) if len(rows) == cache.rows and slots.min() == slots.max() else None
        self._places = None if self._slot is not None else self._everywhere(rows, slots)

    def _everywhere(self, rows: Ints, slots: Ints) -> tuple[Tensor, Tensor]:
        """Return row and slot of each token in each voice, (V * N) each."""
        voices = self._cache.voices
        every = (np.arange(voices)[:, None] * self._cache.rows + rows).ravel()
        both = torch.from_numpy(np.stack([every, np.tile(slots, voices)])).to(self._device)
        return both[0], both[1]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Compute attention over prompt and own tokens, whose keys and values are kept."""
        kept = self._cache[layer]
        for space, new in zip(kept.own, (key, value), strict=True):
            tokens = new.transpose(1, 2).flatten(0, 1)
            if self._places is None:
                space[:, :, self._slot] = tokens
            else:
                space[self._places[0], :, self._places[1]] = tokens
        if len(self._parts) == 1:
            return self._parts[0].attend(kept, query, scale)
        pieces = query.split([part.tokens for part in self._parts], 2)
        return torch.cat([p.attend(kept, q, scale) for p, q in zip(self._parts, pieces, strict=True)], 1)


class _Part:
    """Some tokens of a continuation: at most ``counts`` for each row, one row after the other."""

    def __init__(
        self, cache: Cache, prompts: Ints, prompt_of: Ints, before: Ints, counts: Ints, device: torch.device
    ) -> None:
        self.tokens = int(counts.sum())
        self._device = device
        self._groups = Ragged(np.bincount(prompt_of, counts, len(prompts)).astype(np.int64), device)
        self._ends = prompts if prompts.min() < prompts.max() else None
        self._seen = int((before + counts).max())
        rows = np.flatnonzero(counts)
        # Rows that are few are copied together; else they stay where they are, and the others idle.
        self._picked = cache.index(rows, device) if 2 * len(rows) < cache.rows else None
        if self._picked is not None:
            before, counts = before[rows], counts[rows]
        self._rows = Ragged(counts, device)
        even = self._rows.width == 1 and int((before + counts).min()) == self._seen
        self._before = None if even else before  # rows that have read equally much and one token each see all
        self._biases: tuple[Tensor | None, Tensor | None] | None = None

    def attend(self, kept: Layer, query: Tensor, scale: float) -> Tensor:
        """Return V x tokens x heads x D."""
        voices = len(query)
        if self._biases is None:
            self._biases = self._hidden(query, voices)
        keys, values = (space[:, :, : self._seen] for space in kept.own)
        if self._picked is not None:
            keys, values = keys.index_select(0, self._picked), values.index_select(0, self._picked)
        own = attend(self._rows.pad(query), keys, values, scale, self._biases[1])
        shared = attend(self._groups.pad(query), *kept.prompt, scale, self._biases[0])
        return merge(
            [self._groups.unpad(x, voices) for x in shared], [self._rows.unpad(x, voices) for x in own]
        )

    def _hidden(self, like: Tensor, voices: int) -> tuple[Tensor | None, Tensor | None]:
        """Return what is added to the scores of prompts and of own tokens: -inf where nothing is to be seen."""
        shared = own = None
        if self._ends is not None:
            places = np.arange(self._ends.max())
            shared = _bias(places >= self._ends[:, None, None, None], like, voices)
        if self._before is not None:
            last = self._before[:, None, None, None] + np.arange(self._rows.width)[:, None]
            own = _bias(np.arange(self._seen) > last, like, voices)
        return shared, own


def _bias(hidden: NDArray[np.bool_], like: Tensor, voices: int) -> Tensor:
    mask = torch.from_numpy(hidden).to(like.device)
    bias = torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill_(mask, -torch.inf)
    return bias.repeat(voices, 1, 1, 1) if voices > 1 else bias
