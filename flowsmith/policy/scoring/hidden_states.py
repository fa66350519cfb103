"""The last hidden state of every packed token, through any Hugging Face causal LM, with gradients."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from flowsmith.policy.errors import PolicyError
from flowsmith.policy.scoring.packing import Packed
from flowsmith.policy.scoring.prefix_attention import prefix_sharing, shares_prompts

Context = Callable[[], AbstractContextManager[Any]]
"""What must be entered whenever the model computes, recomputation in the backward pass included."""


def hidden_states(
    causal: Any, packed: Packed, gradient_checkpointing: bool = False, context: Context = nullcontext
) -> Tensor:
    """Run a causal LM up to its head.

    A model whose attention can be replaced computes a prompt once for all its completions and no padding at all. Any
    other computes whole sequences, padded on the right.

    Args:
        causal: A transformers causal LM, adapters in place but without peft's shell.
        packed: Sequences, on the model's device.
        gradient_checkpointing: Keep one tensor a layer and compute the rest again in the backward pass. As everywhere
            in transformers, only in training mode.
        context: Entered whenever layers compute.

    Returns:
        N x width, of the layers' kind of number.

    Raises:
        PolicyError: ``gradient_checkpointing`` with a model that has no layers for it.
    """
    if not shares_prompts(causal):
        with context(), recomputed(causal, gradient_checkpointing, context):
            padded: Tensor = causal.base_model(
                input_ids=packed.ids[packed.rows],
                attention_mask=packed.real.long(),
                position_ids=packed.positions[packed.rows],
                use_cache=False,
            ).last_hidden_state
        return padded.flatten(0, 1)[packed.slots]

    @contextmanager
    def sharing() -> Iterator[None]:
        with context(), prefix_sharing(causal):
            yield

    with sharing(), recomputed(causal, gradient_checkpointing, sharing):
        hidden: Tensor = causal.base_model(
            input_ids=packed.ids[None], position_ids=packed.positions[None], use_cache=False, packed=packed
        ).last_hidden_state
    return hidden[0]


@contextmanager
def recomputed(causal: Any, on: bool, context: Context) -> Iterator[None]:
    """Let the layers that compute inside be computed again in the backward pass, instead of kept."""
    if not on:
        yield
        return
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in causal.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise PolicyError(
            f"gradient_checkpointing=true: {type(causal).__name__} has no layers that can be computed again; set it "
            "to false"
        )
    # The backward pass runs after this function has ended, and needs the same attention and adapter.
    again = partial(checkpoint, use_reentrant=False, context_fn=lambda: (nullcontext(), context()))
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(setattr, layer, "gradient_checkpointing", layer.gradient_checkpointing)
            layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, again
        yield
