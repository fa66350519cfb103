"""Generated pictures as the judges learn from them: seen at their size, some a second time with a fault."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from flowsmith.prompts import Prompt
from miniature.judges.faults import FAULTS, MATTERS_OF_TASTE, Fault, Picture, draw_fault, spoil
from miniature.judges.generated import PICTURES, RECORDS
from miniature.judges.images import NATIVE, View, to_judged_size
from miniature.judges.worth import worth_of_generated
from miniature.scenes import Group, Scene

_MOST_TASTE = 0.6  # strength: what flows do is weaker than half of what can be done


@dataclass(frozen=True)
class Shown:
    """Generated pictures as judges see them.

    Attributes:
        images: uint8, n x 3 x 112 x 112.
        views: What each shows and what was added to spoil it; None where it cannot be read.
        prompts: What was asked for.
        clean: Row of the same picture before it was spoilt; its own row if it was not.
        worth: Utility to who asked for it; None where the checker would not say whether it is right.
    """

    images: Tensor
    views: list[View | None]
    prompts: list[Prompt]
    clean: list[int]
    worth: list[float | None]
    by_prompt: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        """Group the rows by the prompt's text."""
        groups: dict[str, list[int]] = defaultdict(list)
        for row, prompt in enumerate(self.prompts):
            groups[prompt.text].append(row)
        object.__setattr__(self, "by_prompt", dict(groups))

    @property
    def spoilt(self) -> list[int]:
        """Return the rows of spoilt pictures whose scene is known."""
        return [row for row, view in enumerate(self.views) if view and self.clean[row] != row]

    def gains(self, rows: Sequence[int]) -> list[float]:
        """Return by how many points the rating of spoilt pictures rose when they were spoilt."""
        views = [(self.views[row], self.views[self.clean[row]]) for row in rows]
        return [after.rating - before.rating for after, before in views if after and before]


def load_generated(
    folder: Path,
    seed: int,
    half: int | None = None,
    spoilt: float = 0.5,
    only: tuple[Fault, Sequence[float]] | None = None,
) -> Shown:
    """Read what `make_generated` wrote, and add spoilt copies of some pictures; equal arguments give equal results.

    Args:
        folder: What it wrote.
        seed: Of the faults.
        half: 0 or 1 for the pictures of one half of the prompts, see `half_of`; None for all.
        spoilt: Share of pictures that come a second time, with a fault.
        only: One fault and its strengths, one of which is drawn for each; None draws among all faults.
    """
    rng = np.random.default_rng(seed)
    natives, content = load_file(folder / PICTURES), json.loads((folder / RECORDS).read_text())
    records = [r for r in content["pictures"] if half in (None, half_of(r["prompt"]["text"]))]
    images: list[Picture] = []
    views: list[View | None] = []
    prompts: list[Prompt] = []
    clean: list[int] = []
    worth: list[float | None] = []

    def add(
        picture: Picture,
        record: dict[str, Any],
        origin: int,
        fault: Fault | None = None,
        strength: float = 0.0,
    ) -> None:
        side, scene = int(record["side"]), _from_json(record["scene"])
        images.append(to_judged_size(np.stack([picture]))[0])
        views.append(View(scene, fault, strength, side, True, generated=True) if scene else None)
        prompts.append(Prompt(**record["prompt"], split=content["split"], facts=record["facts"]))
        clean.append(origin)
        worth.append(worth_of_generated(record["facts"], record["right"], fault, strength, side > NATIVE))

    for record in records:
        natively, row = natives[record["side"]], len(images)
        picture = natively[record["row"]].numpy()
        add(picture, record, row)
        if rng.random() < spoilt:
            fault = only[0] if only else draw_fault(FAULTS[:-1], rng)
            most = _MOST_TASTE if fault in MATTERS_OF_TASTE else 1
            strength = float(rng.choice(only[1])) if only else float(rng.uniform(0.1, most))
            # Another one than itself, to ghost through.
            other = natively[(record["row"] + int(rng.integers(1, len(natively)))) % len(natively)].numpy()
            add(spoil(picture, fault, strength, rng, other), record, row, fault, strength)
    stacked: NDArray[np.uint8] = np.stack(images)
    return Shown(torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous(), views, prompts, clean, worth)


def half_of(text: str) -> int:
    """Return 0 or 1 for a prompt or caption; what one preference model is asked about, the other never is."""
    return hashlib.sha256(text.encode()).digest()[0] % 2


def _from_json(record: dict[str, Any] | None) -> Scene | None:
    return (
        Scene(**{**record, "groups": tuple(Group(**group) for group in record["groups"])}) if record else None
    )
