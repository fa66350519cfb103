"""Where a cycle's time goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Phase = Literal["rollout", "reward", "logprob", "update"]


class PhaseClock:
    """Adds up seconds by phase, from its making on.

    Args:
        device: Work that was handed to it is waited for at a phase's end, so that it counts where it belongs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = time.perf_counter()
        self.seconds: dict[Phase, float] = dict.fromkeys(get_args(Phase), 0.0)

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        """Count what happens inside for a phase."""
        begin = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[phase] += time.perf_counter() - begin

    def values(self) -> dict[str, float]:
        """Return ``step_time``, and ``time/<phase>`` in seconds and ``time_share/<phase>`` of it so far."""
        total = time.perf_counter() - self._begin
        return {
            "step_time": total,
            **{f"time/{phase}": seconds for phase, seconds in self.seconds.items()},
            **{f"time_share/{phase}": seconds / total for phase, seconds in self.seconds.items()},
        }
