"""Moments in a run at which a process may be killed, told by which of its functions is being called."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import FrameType
from typing import Any

# Calls of Python functions in these files are what a phase is made of.
PHASES = {
    "rollout": ("flowsmith/policy/sampling.py", "flowsmith/policy/decoding/"),
    "reward": ("flowsmith/policy/reward.py", "flowsmith/rewards/"),
    "update": ("torch/optim/", "torch/autograd/", "flowsmith/objectives/", "flowsmith/policy/scoring/"),
    "checkpoint": ("torch/serialization.py", "fsspec/", "flowsmith/files.py"),
    "between": ("lightning/pytorch/loops/", "lightning/pytorch/callbacks/"),
    "export": ("safetensors/", "flowsmith/exports.py"),
}


@dataclass(frozen=True)
class Moment:
    """The n-th call of a phase."""

    phase: str
    call: int

    def __str__(self) -> str:
        return f"{self.phase}-{self.call}"


def draw(counts: dict[str, int], phases: list[str], seed: int) -> list[Moment]:
    """Draw a moment of each phase, all calls of a whole run being equally likely.

    Args:
        counts: How many calls of each phase there are in a run.
        phases: Of which.
        seed: Of the drawing.
    """
    rng = Random(seed)
    return [Moment(phase, rng.randrange(counts[phase])) for phase in phases]


@contextmanager
def watched(moment: Moment | None) -> Iterator[dict[str, int]]:
    """Count the calls of each phase while the context is open, and kill this process at a moment."""
    counts = dict.fromkeys(PHASES, 0)
    phase_of: dict[str, str | None] = {}

    def called(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        file = frame.f_code.co_filename
        if file not in phase_of:
            found = [name for name, places in PHASES.items() if any(place in file for place in places)]
            phase_of[file] = found[0] if found else None
        phase = phase_of[file]
        if phase is None:
            return
        if moment is not None and (phase, counts[phase]) == (moment.phase, moment.call):
            os.kill(os.getpid(), signal.SIGKILL)
        counts[phase] += 1

    sys.setprofile(called)
    try:
        yield counts
    finally:
        sys.setprofile(None)
