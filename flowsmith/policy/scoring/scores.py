"""Log-probabilities of given completions, with gradients: one way for flows under a grammar and for plain text."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowsmith.policy.adapters import head_rows
from flowsmith.policy.build import refuse_rescaling
from flowsmith.policy.scoring.head import AllowedTokens, Head, chosen_tokens
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
        tokens: The chosen tokens (N), counted from the first row of the head that takes part.
        free: True at chosen tokens, B x T.
        allowed: Out of what they were chosen; None: out of all tokens.
    """

    packed: Packed
    source: Tensor
    target: tuple[Tensor, Tensor]
    tokens: Tensor
    free: Tensor
    allowed: AllowedTokens | None = None

    @classmethod
    def of_text(cls, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Self:
        """Lay out plain text: every token of a completion was chosen out of the whole vocabulary.

        Args:
            prompts: Ids of the prompt of each sequence, none empty; equal ones are computed once.
            completions: Ids of what follows.

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
            free=free,
        )

    def to(self, device: torch.device) -> Self:
        """Return a copy on a device."""
        allowed = self.allowed
        return type(self)(
            packed=self.packed.to(device),
            source=self.source.to(device),
            target=(self.target[0].to(device), self.target[1].to(device)),
            tokens=self.tokens.to(device),
            free=self.free.to(device),
            allowed=None if allowed is None else AllowedTokens(*(part.to(device) for part in allowed)),
        )


def score(
    causal: Any,
    head: Head,
    batch: CompletionBatch,
    temperature: float = 1.0,
    *,
    gradient_checkpointing: bool = False,
    context: Context = nullcontext,
) -> Scores:
    """Compute log-probability and entropy of every chosen token, with gradients where they are enabled.

    Args:
        causal: A transformers causal LM, adapters in place but without peft's shell.
        head: Weight and bias of its language head, as far as it takes part.
        batch: Of which, on the model's device.
        temperature: Divides the logits, as it did in sampling.
        gradient_checkpointing: Less memory, a third more computing; in training mode.
        context: Entered whenever layers compute, in the backward pass as well.

    Raises:
        PolicyError: ``gradient_checkpointing`` with a model that has no layers for it.
    """
    hidden = hidden_states(causal, batch.packed, gradient_checkpointing, context)
    choosing = functional.embedding(batch.source, hidden)  # a fast backward pass, as in prefix_attention
    chosen = chosen_tokens(choosing, head, batch.tokens, batch.allowed, temperature)
    zeros = chosen.logprobs.new_zeros(batch.free.shape)
    return Scores(
        zeros.index_put(batch.target, chosen.logprobs),
        zeros.index_put(batch.target, chosen.entropy),
        batch.free,
        torch.zeros_like(batch.free).index_put(batch.target, chosen.likeliest),
    )


def score_text(
    model: nn.Module, batch: CompletionBatch, temperature: float = 1.0, gradient_checkpointing: bool = False
) -> Scores:
    """Compute log-probability and entropy of plain text, whose every token was chosen out of the whole vocabulary.

    Args:
        model: A transformers causal LM, or a ``PeftModel`` around one (its active adapter speaks).
        batch: Of which (`CompletionBatch.of_text`), on any device.
        temperature: Divides the logits, as it did in sampling.
        gradient_checkpointing: Less memory, a third more computing; in training mode.

    Raises:
        PolicyError: The model rescales its logits, its language head is not one linear layer, or
            ``gradient_checkpointing`` with a model that has no layers for it.
    """
    shell: Any = model
    peft = hasattr(model, "get_base_model")
    causal = shell.get_base_model() if peft else shell
    refuse_rescaling(causal.config)
    head = head_rows(causal, shell.active_adapter if peft else None, slice(None))
    batch = batch.to(head[0].device)
    return score(causal, head, batch, temperature, gradient_checkpointing=gradient_checkpointing)
