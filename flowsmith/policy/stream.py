"""One model reading many sequences side by side, with a key-value cache."""

from typing import Any

import torch
from torch import Tensor

from flowsmith.policy.model import Policy


class Stream:
    """A cache whose rows begin with prompts of different lengths and then grow in step.

    Prompts are padded on the right with slots that are never attended to; positions count real tokens only,
    so a row computes what it would alone.
    """

    def __init__(self, policy: Policy, prompts: list[list[int]]) -> None:
        """Read the prompts; `logits` then holds the flow logits after each, prompts x codec.size."""
        from transformers import DynamicCache

        self._policy = policy
        self._cache: Any = DynamicCache(config=policy.causal.config)
        device = policy.device
        width = max(map(len, prompts))
        ids = torch.tensor([p + [policy.tokenizer.pad] * (width - len(p)) for p in prompts], device=device)
        self._lengths = torch.tensor([len(p) for p in prompts], device=device)
        steps = torch.arange(width, device=device)
        self._real = (steps < self._lengths[:, None]).long()
        rows = torch.arange(len(prompts), device=device)
        positions = steps.expand_as(ids)
        self.logits: Tensor = policy(ids, self._real, positions, (rows, self._lengths - 1), self._cache)

    def append(self, chunks: list[list[int]], rows: list[int]) -> None:
        """Read equally many ids a row; `logits` then holds those after the last, for ``rows`` only."""
        ids = torch.tensor(chunks, device=self._policy.device)
        width = ids.shape[1]
        self._real = torch.cat([self._real, torch.ones_like(ids)], 1)
        positions = self._lengths[:, None] + torch.arange(width, device=ids.device)
        wanted = torch.tensor(rows, dtype=torch.long, device=ids.device)
        at = (wanted, torch.full_like(wanted, width - 1))
        self.logits = self._policy(ids, self._real, positions, at, self._cache)
        self._lengths = self._lengths + width

    def repeat(self, times: int) -> None:
        """Turn every row into ``times`` equal rows, side by side."""
        self._cache.batch_repeat_interleave(times)
        self._real = self._real.repeat_interleave(times, 0)
        self._lengths = self._lengths.repeat_interleave(times, 0)
        self.logits = self.logits.repeat_interleave(times, 0)

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these."""
        kept = torch.tensor(rows, device=self._policy.device)
        self._cache.batch_select_indices(kept)
        self._real, self._lengths = self._real[kept], self._lengths[kept]
