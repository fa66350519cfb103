"""Log-probabilities of given completions, with gradients: one way for flows under a grammar and for plain text."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from flowsmith.policy.scoring.choices import Options, choices
from flowsmith.policy.scoring.hidden_states import Context, hidden_states
from flowsmith.policy.scoring.packing import Packed


class Scores(NamedTuple):
    """What a model thinks of given tokens, B x T; 0 (False) where nothing was chosen: forced tokens and padding."""

    logprobs: Tensor
    entropy: Tensor
    free: Tensor
    likeliest: Tensor
    """True where no token was likelier than the given one."""


@dataclass(frozen=True)
class CompletionBatch:
    """Prompts with completions, laid out for any model of their vocabulary.

    Attributes:
        packed: The sequences.
        source: Index into the packed tokens (N) whose hidden states choose.
        target: Batch and place in the completion (N each) of what is chosen.
        tokens: The chosen tokens (N), counted from the first row of ``options``.
        options: Out of what they were chosen.
        free: True at chosen tokens, B x T.
    """

    packed: Packed
    source: Tensor
    target: tuple[Tensor, Tensor]
    tokens: Tensor
    options: Options
    free: Tensor

    @classmethod
    def of_text(
        cls, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], vocabulary: int
    ) -> Self:
        """Lay out plain text: every token of a completion was chosen out of the whole vocabulary.

        Args:
            prompts: Ids of the prompt of each sequence, none empty; equal ones are computed once.
            completions: Ids of what follows.
            vocabulary: Rows of the model's head.

        Raises:
            PolicyError: A prompt is empty.
        """
        lengths = torch.tensor([len(c) for c in completions])
        free = torch.arange(int(lengths.max())) < lengths[:, None]
        packed = Packed.of(prompts, completions)
        batch, places = free.nonzero(as_tuple=True)
        before = torch.tensor([len(p) - 1 for p in prompts])
        return cls(
            packed=packed,
            source=packed.rows[batch, before[batch] + places],
            target=(batch, places),
            tokens=torch.tensor([t for c in completions for t in c], dtype=torch.long),
            options=Options((0, vocabulary)),
            free=free,
        )

    def to(self, device: torch.device) -> Self:
        """Return a copy on a device."""
        rows, masks, mask_of = self.options
        return type(self)(
            packed=self.packed.to(device),
            source=self.source.to(device),
            target=(self.target[0].to(device), self.target[1].to(device)),
            tokens=self.tokens.to(device),
            options=Options(
                rows,
                None if masks is None else masks.to(device),
                None if mask_of is None else mask_of.to(device),
            ),
            free=self.free.to(device),
        )


def score(
    causal: Any,
    batch: CompletionBatch,
    temperature: float = 1.0,
    *,
    gradient_checkpointing: bool = False,
    context: Context = nullcontext,
) -> Scores:
    """Compute log-probability and entropy of every chosen token, with gradients where they are enabled.

    Args:
        causal: A transformers causal LM, adapters in place but without peft's shell.
        batch: Of which, on the model's device.
        temperature: Divides the logits, as it did in sampling.
        gradient_checkpointing: Less memory, a third more computing; in training mode.
        context: Entered whenever the model computes, in the backward pass as well.

    Raises:
        PolicyError: ``gradient_checkpointing`` with a model that has no layers for it.
    """
    hidden = hidden_states(causal, batch.packed, gradient_checkpointing, context)
    chosen = choices(
        causal.get_output_embeddings(),
        torch.nn.functional.embedding(batch.source, hidden),  # fast backward, as in prefix_attention
        batch.tokens,
        batch.options,
        temperature,
        context,
    )
    zeros = chosen.logprobs.new_zeros(batch.free.shape)
    return Scores(
        zeros.index_put(batch.target, chosen.logprobs),
        zeros.index_put(batch.target, chosen.entropy),
        batch.free,
        torch.zeros_like(batch.free).index_put(batch.target, chosen.likeliest),
    )
