"""What the decoder needs of a causal LM: hidden states of new tokens, and logits where they are wanted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowsmith.policy.adapters import head_rows
from flowsmith.policy.build import refuse_rescaling
from flowsmith.policy.decoding.attention import Step, decoding_attention


@dataclass(frozen=True)
class Network:
    """A transformers causal LM, or several voices of one that differ in their adapters.

    Attributes:
        causal: The model, with `attention.decoding_attention` in place.
        weight: Rows of the language head, V x size x hidden.
        bias: Of the head, V x 1 x size; None without.
    """

    causal: Any
    weight: Tensor
    bias: Tensor | None = None

    @property
    def voices(self) -> int:
        """How many models read side by side."""
        return len(self.weight)

    @property
    def device(self) -> torch.device:
        """Where the tokens must be."""
        return self.weight.device

    def hidden(self, ids: Tensor, positions: Tensor, step: Step) -> Tensor:
        """Return the last hidden states of N tokens, V x N x hidden.

        Args:
            ids: Of all sequences, one after the other, N.
            positions: Of each in its sequence, N.
            step: What they see.
        """
        shape = (self.voices, len(ids))
        states: Tensor = self.causal.base_model(
            input_ids=ids.to(self.device).expand(shape),
            position_ids=positions.to(self.device).expand(shape),
            use_cache=False,
            decoding=step,
        ).last_hidden_state
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Return V x n x size for V x n x hidden, in single precision at least."""
        weight = self.weight.mT
        if self.voices == 1:  # a batched product of one is slower
            logits = functional.linear(hidden, self.weight[0], None if self.bias is None else self.bias[0, 0])
        else:
            logits = hidden @ weight if self.bias is None else torch.baddbmm(self.bias, hidden, weight)
        # A softmax over half-precision logits would lose what tells close choices apart.
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


@contextmanager
def inference(models: Sequence[nn.Module]) -> Iterator[None]:
    """Put models into evaluation mode and compute without gradients; afterwards each is in the mode it was in."""
    modes = [(model, model.training) for model in models]
    for model in models:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for model, training in modes:
            model.train(training)


@contextmanager
def text_network(model: Any) -> Iterator[Network]:
    """Lend the whole of a causal LM, or of the one within a ``PeftModel``, for sampling.

    Raises:
        PolicyError: It rescales its logits, its language head is not one linear layer, or its attention cannot
            be replaced.
    """
    peft = hasattr(model, "get_base_model")
    causal = model.get_base_model() if peft else model
    refuse_rescaling(causal.config)
    with inference([model]), decoding_attention(causal):
        weight, bias = head_rows(causal, model.active_adapter if peft else None, slice(None))
        yield Network(causal, weight[None], None if bias is None else bias[None, None])
