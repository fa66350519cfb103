"""An exponential moving average of what trains, for a reference that follows the policy."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from flowsmith.policy.errors import PolicyError
from flowsmith.policy.model import Policy


class MovingAverage(nn.Module):
    """Averages the policy's training parameters; everything else of the network is shared with it.

    So a full model keeps one more copy of itself, and a LoRA policy one more adapter, not a second base. The
    averages are buffers: they follow the module to its device and into its state.

    Args:
        policy: As it is now, which is where the average begins.
        decay: Share that an update keeps of the average, in 0..1; 1 never moves.

    Raises:
        PolicyError: ``decay`` leaves its range.
    """

    def __init__(self, policy: Policy, decay: float) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise PolicyError(f"decay={decay}: the share of an average that an update keeps; use 0..1")
        self._decay = decay
        # In a dict, so that the policy does not become a part of this module.
        self._parameters_of = {
            name.replace(".", "/"): parameter
            for name, parameter in policy.named_parameters()
            if parameter.requires_grad
        }
        for name, parameter in self._parameters_of.items():
            # At half precision, steps of 1 - decay would be rounded away.
            dtype = torch.promote_types(parameter.dtype, torch.float32)
            self.register_buffer(name, parameter.detach().to(dtype, copy=True))

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the policy as it is now."""
        for name, average in self.named_buffers():
            average.lerp_(self._parameters_of[name].detach().to(average), 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages in the place of the policy's parameters, for passes without gradients."""
        before = {name: parameter.data for name, parameter in self._parameters_of.items()}
        try:
            for name, average in self.named_buffers():
                self._parameters_of[name].data = average.to(before[name])
            yield
        finally:
            for name, parameter in self._parameters_of.items():
                parameter.data = before[name]
