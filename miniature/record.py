"""What the steps of the build reached: figures, seconds and losses, kept in one JSON file."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from flowsmith.files import atomic_write


@dataclass(frozen=True)
class Training:
    """How one training ended: its steps, and the running mean of its loss (the last fifty steps or so)."""

    steps: int
    loss: float


@dataclass(frozen=True)
class Reached:
    """What one step of the build reached.

    Attributes:
        figures: Of its gate.
        seed: It was made with.
        seconds: It took; of the last start alone where it was stopped and went on.
        resumed: Whether it was stopped and went on.
        trainings: By name.
        missed: What the gate asked for and did not get; such a step is run again.
    """

    figures: dict[str, float]
    seed: int
    seconds: float
    resumed: bool = False
    trainings: dict[str, Training] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)


def read_record(path: Path) -> dict[str, Reached]:
    """Read what the steps reached by name; nothing where there is no file."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Reached(**{**step, "trainings": {k: Training(**v) for k, v in step["trainings"].items()}})
        for name, step in found.items()
    }


def write_record(path: Path, reached: dict[str, Reached]) -> None:
    """Write what the steps reached, whole or not at all."""
    with atomic_write(path) as temporary:
        text = json.dumps({name: asdict(step) for name, step in reached.items()}, indent=2)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_trainings(scratch: Path, names: Iterable[str]) -> dict[str, Training]:
    """Read how trainings stand from the states that `miniature.training.fit` keeps; a name without one is left out."""
    found = {}
    for name in names:
        path = scratch / f"{name}.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            found[name] = Training(int(state["step"]), float(state["smooth"]))
    return found
