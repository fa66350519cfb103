"""Keys and values: a prompt's once for all samples of it, and room for what each sample adds.

Nothing is concatenated as sequences grow; room is made by doubling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_FIRST_ROOM = 64


@dataclass
class Layer:
    """Keys and values of one layer, voice by voice.

    Attributes:
        prompt: (V * prompts) x heads x longest prompt x D, each.
        own: (V * rows) x heads x room x D, each.
    """

    prompt: tuple[Tensor, Tensor]
    own: tuple[Tensor, Tensor]


class Cache:
    """Keys and values of every layer for a number of rows, which are sequences in the making.

    Attributes:
        rows: Rows that there is room for.
        voices: Models that read them side by side.
    """

    def __init__(self, rows: int, voices: int, limit: int) -> None:
        """Be empty.

        Args:
            rows: Sequences.
            voices: Models that read them side by side.
            limit: Most tokens that a row adds to its prompt.
        """
        self.rows, self.voices, self._limit = rows, voices, limit
        self._room = min(limit, _FIRST_ROOM)
        self._layers: dict[int, Layer] = {}

    def __getitem__(self, layer: int) -> Layer:
        """Return what is kept of a layer."""
        return self._layers[layer]

    def open(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Keep a layer's keys and values of the prompts, and make room beside them."""
        self._layers[layer] = Layer((keys, values), (self._space(keys), self._space(values)))

    def make_room(self, tokens: int) -> None:
        """Let every row hold this many tokens of its own."""
        if tokens <= self._room:
            return
        self._room = min(self._limit, max(tokens, 2 * self._room))
        for layer in self._layers.values():
            layer.own = self._moved(layer.own[0]), self._moved(layer.own[1])

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        kept = (torch.arange(self.voices, device=rows.device)[:, None] * self.rows + rows).flatten()
        self.rows = len(rows)
        for layer in self._layers.values():
            layer.own = layer.own[0].index_select(0, kept), layer.own[1].index_select(0, kept)

    def _space(self, like: Tensor) -> Tensor:
        # Zeros: what is hidden counts 0 times its value, and 0 times leftover memory could be NaN.
        return like.new_zeros(self.voices * self.rows, like.shape[1], self._room, like.shape[3])

    def _moved(self, before: Tensor) -> Tensor:
        space = self._space(before)
        space[:, :, : before.shape[2]] = before
        return space
