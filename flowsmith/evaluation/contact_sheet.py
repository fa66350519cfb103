"""A sheet of sample pictures: prompts down, designers across."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """What a designer's flow gave for a prompt.

    Attributes:
        picture: uint8, 3 x height x width; None if it failed.
        score: Its score, shown under it.
    """

    picture: Tensor | None
    score: float | None


def contact_sheet(rows: Sequence[tuple[str, Mapping[str, Sample]]], designers: Sequence[str]) -> Figure:
    """Return a figure with a row per prompt and a column per designer, scores under the pictures.

    Args:
        rows: A prompt's text, and the designers' samples by name; at least one prompt.
        designers: Names of the columns; black where one has no picture for a prompt.
    """
    figure = Figure(figsize=(1.5 * len(designers) + 0.3, 1.85 * len(rows)), dpi=110, layout="constrained")
    grid = figure.subplots(len(rows), len(designers), squeeze=False)
    for axes, (text, samples) in zip(grid, rows, strict=True):
        axes[0].set_title(text, fontsize=7, loc="left", parse_math=False)
        for axis, designer in zip(axes, designers, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            sample = samples.get(designer, Sample(None, None))
            empty = np.zeros((1, 1, 3), np.uint8)
            axis.imshow(empty if sample.picture is None else sample.picture.permute(1, 2, 0).numpy())
            scored = "" if sample.score is None else f" {sample.score:+.2f}"
            axis.set_xlabel(designer + scored, fontsize=6, parse_math=False)
    return figure
