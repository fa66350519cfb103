"""An executor that paints instead of rendering, and a reader that knows what was painted: for tests of the judges."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from flowsmith.execution import RenderResult, RenderTask
from flowsmith.flows import Flow
from miniature.scenes import Scene, render, sample_scene


class Painted:
    """Paints a random scene for every task, at the flow's size; what it painted can be looked up by the picture."""

    def __init__(self) -> None:
        self.scenes: dict[bytes, Scene] = {}
        self.tasks: list[RenderTask] = []

    def executor(self, models: object, **options: object) -> "Painted":
        """Stand for the constructor of an executor."""
        return self

    def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        """Paint; results come in another order than the tasks."""
        self.tasks = list(tasks)
        for number, task in enumerate(reversed(self.tasks)):
            rng = np.random.default_rng(number)
            scene = sample_scene(rng)
            picture = render(scene, side_of(task.flow), rng)
            self.scenes[picture.tobytes()] = scene
            yield RenderResult(task.sample_id, torch.from_numpy(picture).permute(2, 0, 1), None, 0.0)

    def read(self, picture: NDArray[np.uint8]) -> Scene | None:
        """Return what was painted; a scene of three objects cannot be read."""
        scene = self.scenes[picture.tobytes()]
        return scene if sum(g.count for g in scene.groups) < 3 else None


def side_of(flow: Flow) -> int:
    """Return the width that a flow asks for."""
    nodes = flow.to_template().values()
    return int(next(n["inputs"]["width"] for n in nodes if n["class_type"] == "EmptyLatentImage"))
