"""Groups of tokens side by side, some with more than others, and the even grid that attention computes on.

Every linear layer sees the tokens alone, so prompts of different length and rows with more or less to read
cost no padding there; attention alone, a small part, pads each group to the widest.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


def offsets(counts: Ints) -> Ints:
    """Return the place of every token within its group: 0, 1, 2 for a group of three."""
    places: Ints = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return places


class Ragged:
    """How N tokens divide into groups.

    Attributes:
        width: Tokens of the largest group.
    """

    def __init__(self, counts: Ints, device: torch.device) -> None:
        """Lay out the grid.

        Args:
            counts: Tokens of each group, 0 or more; together N, at least 1.
            device: Where the tokens will be.
        """
        self.width = int(counts.max())
        self._into: Tensor | None = None
        self._back: Tensor | None = None
        if counts.min() < self.width:
            steps = np.arange(self.width)
            # A cell beyond a group's end holds some other token; nobody reads its result.
            cells = np.minimum((counts.cumsum() - counts)[:, None] + steps, counts.sum() - 1)
            self._into = torch.from_numpy(cells.ravel()).to(device)
            self._back = torch.from_numpy(np.flatnonzero(steps < counts[:, None])).to(device)

    def pad(self, tokens: Tensor) -> Tensor:
        """Spread V x heads x N x D over the grid: (V * groups) x heads x width x D."""
        cells = tokens.transpose(1, 2)
        if self._into is not None:
            cells = cells.index_select(1, self._into)
        return cells.reshape(-1, self.width, *cells.shape[2:]).transpose(1, 2)

    def unpad(self, cells: Tensor, voices: int) -> Tensor:
        """Gather the tokens of a grid, (V * groups) x width x ...: V x N x ..."""
        tokens = cells.reshape(voices, -1, *cells.shape[2:])
        return tokens if self._back is None else tokens.index_select(1, self._back)
