"""Reads groups of sequences that begin with shared prompts, and says what may come next.

Each prompt is read once for all its samples. A step reads any number of tokens for each sequence that goes on;
a sequence that is named no more has left the batch.
"""

import numpy as np
import torch
from torch import Tensor

from flowsmith.policy.decoding.cache import Cache
from flowsmith.policy.decoding.network import Network
from flowsmith.policy.decoding.ragged import Ints, offsets
from flowsmith.policy.decoding.steps import Continuation, Prefill

_CROWDED = 0.75  # with fewer of the rows in use, the others are given up


class Decoder:
    """Sequences in the making.

    Attributes:
        logits: After each prompt, for every sequence: V x sequences x size.
    """

    def __init__(self, network: Network, prompts: list[list[int]], samples: int, limit: int) -> None:
        """Read the prompts.

        Args:
            network: One model, or several side by side.
            prompts: Ids, at least one each.
            samples: Sequences that begin with each prompt.
            limit: Most tokens that are read after a prompt.
        """
        self._network = network
        self._prompts: Ints = np.array([len(prompt) for prompt in prompts])
        self._prompt_of = np.repeat(np.arange(len(prompts)), samples)
        self._row_of = np.arange(len(self._prompt_of))
        self._read = np.zeros_like(self._row_of)
        self._cache = Cache(len(self._row_of), network.voices, limit)
        step = Prefill(self._cache, self._prompts, network.device)
        ids = torch.tensor([token for prompt in prompts for token in prompt])
        hidden = network.hidden(ids, torch.from_numpy(offsets(self._prompts)), step)
        last = torch.from_numpy(self._prompts.cumsum() - 1).to(network.device)
        self.logits = network.logits(hidden[:, last]).repeat_interleave(samples, 1)

    def read(self, sequences: Ints, tokens: Tensor, counts: Ints) -> Tensor:
        """Read on.

        Args:
            sequences: Which, ascending; prompt p's samples are the sequences from p * samples on.
            tokens: All their new ids, one sequence after the other, N.
            counts: How many belong to each sequence, at least 1.

        Returns:
            Logits after the last token of each sequence, V x len(sequences) x size.
        """
        if len(sequences) < _CROWDED * self._cache.rows:
            self._give_up_all_but(sequences)
        rows = self._row_of[sequences]
        new = np.zeros_like(self._read)
        new[rows] = counts
        network = self._network
        step = Continuation(self._cache, self._prompts, self._prompt_of, self._read, new, network.device)
        starts = self._prompts[self._prompt_of[rows]] + self._read[rows]
        positions = np.repeat(starts, counts) + offsets(counts)
        hidden = network.hidden(tokens, torch.from_numpy(positions), step)
        self._read = self._read + new
        if len(tokens) > len(sequences):
            hidden = hidden[:, torch.from_numpy(counts.cumsum() - 1).to(network.device)]
        return network.logits(hidden)

    def _give_up_all_but(self, sequences: Ints) -> None:
        rows = self._row_of[sequences]
        self._cache.keep(torch.from_numpy(rows).to(self._network.device))
        self._prompt_of, self._read = self._prompt_of[rows], self._read[rows]
        self._row_of[sequences] = np.arange(len(rows))
