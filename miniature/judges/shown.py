"""Generated pictures as the judges learn from them: seen at their size, some a second time with a fault."""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from flowsmith.prompts import Prompt
from miniature.judges.faults import FAULTS, Picture, spoil
from miniature.judges.generated import PICTURES, RECORDS
from miniature.judges.images import View, to_judged_size
from miniature.scenes import Group, Scene


@dataclass(frozen=True)
class Shown:
    """Generated pictures as judges see them.

    Attributes:
        images: uint8, n x 3 x 112 x 112.
        views: What each shows and what was added to spoil it; None where it cannot be read.
        prompts: What was asked for.
        clean: Row of the same picture before it was spoilt; its own row if it was not.
    """

    images: Tensor
    views: list[View | None]
    prompts: list[Prompt]
    clean: list[int]
    by_prompt: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        """Group the rows by the prompt's text."""
        groups: dict[str, list[int]] = defaultdict(list)
        for row, prompt in enumerate(self.prompts):
            groups[prompt.text].append(row)
        object.__setattr__(self, "by_prompt", dict(groups))

    @property
    def readable(self) -> list[int]:
        """Return the rows whose scene is known."""
        return [row for row, view in enumerate(self.views) if view]


def load_generated(folder: Path, seed: int, half: int | None = None, spoilt: float = 0.5) -> Shown:
    """Read what `make_generated` wrote, and add spoilt copies of some pictures; equal arguments give equal results.

    Args:
        folder: What it wrote.
        seed: Of the faults.
        half: 0 or 1 for the pictures of one half of the prompts, see `half_of`; None for all.
        spoilt: Share of pictures that come a second time, with a fault.
    """
    rng = np.random.default_rng(seed)
    natives, content = load_file(folder / PICTURES), json.loads((folder / RECORDS).read_text())
    records = [r for r in content["pictures"] if half in (None, half_of(r["prompt"]["text"]))]
    images: list[Picture] = []
    views: list[View | None] = []
    prompts: list[Prompt] = []
    clean: list[int] = []

    def add(picture: Picture, view: View | None, record: dict[str, Any], origin: int) -> None:
        images.append(to_judged_size(np.stack([picture]))[0])
        views.append(view)
        prompts.append(Prompt(**record["prompt"], split=content["split"], facts=record["facts"]))
        clean.append(origin)

    for record in records:
        natively, scene = natives[record["side"]], _from_json(record["scene"])
        picture, side = natively[record["row"]].numpy(), int(record["side"])
        row = len(images)
        add(picture, View(scene, None, 0.0, side, True, generated=True) if scene else None, record, row)
        if scene and rng.random() < spoilt:
            fault, strength = FAULTS[int(rng.integers(len(FAULTS) - 1))], float(rng.uniform(0.1, 1))
            # Another one than itself, to ghost through.
            other = natively[(record["row"] + int(rng.integers(1, len(natively)))) % len(natively)].numpy()
            view = View(scene, fault, strength, side, True, generated=True)
            add(spoil(picture, fault, strength, rng, other), view, record, row)
    stacked: NDArray[np.uint8] = np.stack(images)
    return Shown(torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous(), views, prompts, clean)


def half_of(text: str) -> int:
    """Return 0 or 1 for a prompt or caption; what one preference model is asked about, the other never is."""
    return hashlib.sha256(text.encode()).digest()[0] % 2


def _from_json(record: dict[str, Any] | None) -> Scene | None:
    return (
        Scene(**{**record, "groups": tuple(Group(**group) for group in record["groups"])}) if record else None
    )
