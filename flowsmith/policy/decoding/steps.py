"""The two kinds of forward pass: whole prompts first, then a few tokens for every row that goes on."""

import numpy as np
import torch
from torch import Tensor

from flowsmith.policy.decoding.attention import attend, causal, merge
from flowsmith.policy.decoding.cache import Cache
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
    """Some tokens for each row, which see the row's prompt, what the row read before, and each other."""

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
        self._cache, self._device = cache, device
        self._seen = int(after.max())
        self._rows = Ragged(counts, device)
        sizes = np.zeros(len(prompts), np.int64)
        np.add.at(sizes, prompt_of, counts)
        self._groups = Ragged(sizes, device)
        cache.make_room(self._seen)
        self._lengths = prompts if prompts.min() < prompts.max() else None
        self._before, self._counts = before, counts
        # Rows that have read equally much and read one token each hide nothing, and write into one slot.
        self._even = self._rows.width == 1 and int(after.min()) == self._seen
        self._places = None if self._even else self._slots(cache.voices)
        self._hidden: tuple[Tensor | None, Tensor | None] | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Compute attention over prompt and own tokens, whose keys and values are kept."""
        kept, voices = self._cache[layer], len(query)
        for space, new in zip(kept.own, (key, value), strict=True):
            self._write(space, new)
        if self._hidden is None:
            self._hidden = self._biases(query, voices)
        keys, values = (space[:, :, : self._seen] for space in kept.own)
        own = attend(self._rows.pad(query), keys, values, scale, self._hidden[1])
        shared = attend(self._groups.pad(query), *kept.prompt, scale, self._hidden[0])
        return merge(
            [self._groups.unpad(part, voices) for part in shared],
            [self._rows.unpad(part, voices) for part in own],
        )

    def _slots(self, voices: int) -> tuple[Tensor, Tensor]:
        """Return row and slot of each new token, (V * N) each."""
        rows = np.repeat(np.arange(len(self._counts)), self._counts)
        slots = np.repeat(self._before, self._counts) + offsets(self._counts)
        every = (np.arange(voices)[:, None] * len(self._counts) + rows).ravel()
        both = torch.from_numpy(np.stack([every, np.tile(slots, voices)])).to(self._device)
        return both[0], both[1]

    def _write(self, space: Tensor, new: Tensor) -> None:
        tokens = new.transpose(1, 2).flatten(0, 1)
        if self._places is None:
            space[:, :, self._seen - 1] = tokens
        else:
            space[self._places[0], :, self._places[1]] = tokens

    def _biases(self, like: Tensor, voices: int) -> tuple[Tensor | None, Tensor | None]:
        """Return what is added to the scores of prompts and of own tokens: -inf where nothing is to be seen."""
        shared = own = None
        if self._lengths is not None:
            ends = torch.from_numpy(self._lengths).to(self._device)[:, None]
            shared = torch.arange(int(self._lengths.max()), device=self._device) >= ends
            shared = _bias(shared[:, None, None], like, voices)
        if not self._even:
            last = torch.from_numpy(self._before).to(self._device)[:, None] + torch.arange(
                self._rows.width, device=self._device
            )
            own = torch.arange(self._seen, device=self._device) > last[..., None]
            own = _bias(own[:, None], like, voices)
        return shared, own


def _bias(hidden: Tensor, like: Tensor, voices: int) -> Tensor:
    bias = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)
    return bias.repeat(voices, 1, 1, 1)
