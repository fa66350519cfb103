"""Policies made ready for decoding: adapters of one base, or small models alike, side by side; others in turn."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from flowsmith.policy.decoding.attention import decoding_attention
from flowsmith.policy.decoding.network import Network, inference
from flowsmith.policy.decoding.stacked import stacked
from flowsmith.policy.decoding.stacked_models import stackable, stacked_models
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
    adapters = len(voices) > 1 and all(v.adapter and v.model is voices[0].model for v in voices)
    full = len(voices) > 1 and not any(voice.adapter for voice in voices)
    alike = full and stackable([voice.causal for voice in voices])
    groups = [list(voices)] if adapters or alike else [[voice] for voice in voices]
    with ExitStack() as stack:
        stack.enter_context(inference([voice.model for voice in voices]))
        networks = []
        for group in groups:
            first = group[0]
            heads = [voice.head() for voice in group]
            biases = [bias for _, bias in heads if bias is not None]
            if first.adapter is not None:
                stack.enter_context(stacked(first.model, [voice.adapter or "" for voice in group]))
            elif len(group) > 1:
                stack.enter_context(stacked_models([voice.causal for voice in group]))
            stack.enter_context(decoding_attention(first.causal))
            networks.append(
                Network(
                    first.causal,
                    torch.stack([weight for weight, _ in heads]),
                    torch.stack(biases)[:, None] if biases else None,
                )
            )
        yield networks
