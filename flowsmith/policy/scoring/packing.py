"""Many sequences end to end in one row, without padding, each prompt once for all its completions."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from flowsmith.policy.errors import PolicyError


@dataclass(frozen=True)
class Packed:
    """N tokens that stand for B sequences, where sequences with equal prompts share the prompt's tokens.

    Attributes:
        ids: The tokens, N.
        positions: Each token's place in its sequence, from 0, N.
        rows: Index into the N tokens of every place of every sequence, prompt first, B x L; 0 at padding.
        lengths: Of the sequences, B.
        slots: Where each token stands in ``rows``, flattened, N; a prompt's in the first sequence that has it.
    """

    ids: Tensor
    positions: Tensor
    rows: Tensor
    lengths: Tensor
    slots: Tensor

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Self:
        """Lay out sequences.

        Args:
            prompts: Ids of the prompt of each sequence, at least one; equal ones are shared.
            completions: Ids of what follows, one a sequence.

        Raises:
            PolicyError: A prompt is empty, so that nothing predicts the first token of its completion.
        """
        if not all(prompts):
            raise PolicyError("a prompt of no tokens predicts nothing; begin it with a token such as bos")
        lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
        width = max(lengths)
        rows = torch.zeros(len(lengths), width, dtype=torch.long)
        starts: dict[tuple[int, ...], int] = {}
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            key, cut, end = tuple(prompt), len(prompt), lengths[row]
            first = 0 if key not in starts else cut  # places from here on are not in the row yet
            if first == 0:
                starts[key] = len(ids)
                ids += prompt
            rows[row, :cut] = torch.arange(starts[key], starts[key] + cut)
            rows[row, cut:end] = torch.arange(len(ids), len(ids) + len(completion))
            ids += completion
            positions += range(first, end)
            slots += range(row * width + first, row * width + end)
        return cls(
            ids=torch.tensor(ids),
            positions=torch.tensor(positions),
            rows=rows,
            lengths=torch.tensor(lengths),
            slots=torch.tensor(slots),
        )

    @property
    def real(self) -> Tensor:
        """False at padding, B x L."""
        return torch.arange(self.rows.shape[1], device=self.rows.device) < self.lengths[:, None]

    def to(self, device: torch.device) -> Self:
        """Return a copy on a device."""
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})
