"""Policies made ready for decoding: adapters of one base in one forward pass, other models one after the other."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from flowsmith.policy.decoding.attention import decoding_attention
from flowsmith.policy.decoding.network import Network, evaluating
from flowsmith.policy.decoding.stacked import stacked
from flowsmith.policy.model import Policy


@contextmanager
def ready(voices: Sequence[Policy]) -> Iterator[list[Network]]:
    """Lend the networks of some policies for sampling; afterwards they are as they were.

    Args:
        voices: Of one vocabulary.

    Yields:
        Networks whose voices, one after the other, are the policies in order.

    Raises:
        PolicyError: A model cannot be decoded.
    """
    together = len(voices) > 1 and all(v.adapter and v.model is voices[0].model for v in voices)
    groups = [list(voices)] if together else [[voice] for voice in voices]
    with ExitStack() as stack:
        stack.enter_context(evaluating([group[0].model for group in groups]))
        networks = []
        for group in groups:
            first = group[0]
            heads = [voice.head() for voice in group]
            biases = [bias for _, bias in heads if bias is not None]
            if first.adapter is not None:
                stack.enter_context(stacked(first.model, [voice.adapter or "" for voice in group]))
            stack.enter_context(decoding_attention(first.causal))
            networks.append(
                Network(
                    first.causal,
                    torch.stack([weight.detach() for weight, _ in heads]),
                    torch.stack(biases).detach()[:, None] if biases else None,
                )
            )
        yield networks
