"""The plain way to render tasks, against which the executor is measured: node after node, one sample at a time."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flowsmith.designers import EveryFlowDesigner
from flowsmith.execution import Executor, ModelLibrary, RenderTask
from flowsmith.execution.graph import Plan, plan_graph
from flowsmith.flows import Schema
from flowsmith.prompts import read_prompts

MINIATURE = Path("miniature")


@dataclass(frozen=True)
class Rendered:
    """Images (uint8 [3, h, w]) by sample id, and the seconds that all took."""

    images: Mapping[str, Tensor]
    seconds: float


def mixed_tasks(count: int, miniature: Path = MINIATURE) -> list[RenderTask]:
    """Return tasks as the dense collection has them: prompt by prompt, each with every hand-written flow."""
    designer = EveryFlowDesigner(str(miniature / "flows"), str(miniature / "domain.yaml"))
    prompts = read_prompts(miniature / "data" / "prompts.jsonl", "train")
    tasks: list[RenderTask] = []
    for number, prompt in enumerate(prompts):
        if len(tasks) >= count:
            break
        for c in designer.propose([prompt], 1, number):
            tasks.append(RenderTask(c.sample_id, c.flow, prompt.text, c.seed))
    return tasks[:count]


def render_plainly(tasks: Sequence[RenderTask], models: Path, reload: bool) -> Rendered:
    """Render tasks in their order, each by itself.

    Args:
        tasks: What to render.
        models: Folder of models.
        reload: Read the model files anew whenever a task wants others than the one before; otherwise all of them are
            read before the clock starts.
    """
    schema, images = Schema.core(), {}
    library = ModelLibrary(models)
    plans = [plan_graph(task.flow.to_comfyui(task.prompt, task.seed, schema)) for task in tasks]
    if not reload:
        for plan in plans:
            _run(plan, library, loaders_only=True)
    there: tuple[str, ...] = ()
    start = time.perf_counter()
    for task, plan in zip(tasks, plans, strict=True):
        if reload and plan.files != there:
            library, there = ModelLibrary(models), plan.files
        images[task.sample_id] = _run(plan, library)
    return Rendered(images, time.perf_counter() - start)


def render_with_executor(tasks: Sequence[RenderTask], models: Path, batch_size: int) -> Rendered:
    """Render tasks with an executor that has seen nothing yet; reading of model files counts."""
    start, images = time.perf_counter(), {}
    for result in Executor(models, batch_size=batch_size).render(tasks):
        assert result.image is not None, result.error
        images[result.sample_id] = result.image
    return Rendered(images, time.perf_counter() - start)


def equal_pixel_share(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the share of values that differ by 1 of 255 at most, over all images of both.

    An image that only one of them has, or that has another size there, counts as different.
    """
    equal = total = 0
    for name in one.keys() | other.keys():
        a, b = one.get(name), other.get(name)
        total += max(image.numel() for image in (a, b) if image is not None)
        if a is not None and b is not None and a.shape == b.shape:
            equal += int(((a.int() - b.int()).abs() <= 1).sum())
    return equal / total if total else 0.0


def _run(plan: Plan, library: ModelLibrary, loaders_only: bool = False) -> Tensor:
    values: dict[str, tuple[object, ...]] = {}
    with torch.inference_mode():
        for step in plan.steps:
            if loaders_only and not step.node.loads:
                continue
            linked = {name: values[key][slot] for name, (key, slot) in step.links.items()}
            values[step.key] = step.node.run([{**step.values, **linked}], library)[0]
    image = values.get(plan.outputs[0], (torch.empty(0),))[-1]
    assert isinstance(image, Tensor)
    return image
