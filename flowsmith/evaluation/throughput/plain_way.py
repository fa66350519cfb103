"""The plain way to render tasks, against which the executor is measured: node after node, one sample at a time."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsmith.designers import EveryFlowDesigner
from flowsmith.evaluation.throughput.clocks import ratio, timed
from flowsmith.execution import Executor, ModelLibrary, RenderTask
from flowsmith.execution.graph import Plan, plan_graph
from flowsmith.flows import Schema
from flowsmith.prompts import Prompt

Images = dict[str, Tensor]
"""uint8 [3, h, w] by sample id."""


def mixed_tasks(flows: Path, domain: Path, prompts: Sequence[Prompt], count: int) -> list[RenderTask]:
    """Return tasks in the order in which a collection proposes them: prompt by prompt, each with every flow."""
    designer = EveryFlowDesigner(str(flows), str(domain))
    proposed = [
        c for number, prompt in enumerate(prompts[:count]) for c in designer.propose([prompt], 1, number)
    ]
    return [RenderTask(c.sample_id, c.flow, c.prompt.text, c.seed) for c in proposed[:count]]


def against_the_plain_way(
    tasks: Sequence[RenderTask], models: Path, batch_size: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Render tasks with the executor, and plainly with and without reading of models, and compare.

    The executor starts with nothing loaded and reads every model it needs; the plain way without reading has all of
    them loaded before the clock starts.
    """
    render_plainly(tasks[:1], partial(ModelLibrary, models, dtype=dtype))  # libraries are imported by then
    loaded = loaded_library(tasks, models, dtype)
    mine, executor = timed(lambda: render_with_executor(tasks, models, batch_size, dtype))
    plainly, without = timed(lambda: render_plainly(tasks, lambda: loaded))
    again, reloading = timed(lambda: render_plainly(tasks, partial(ModelLibrary, models, dtype=dtype)))
    return {
        "tasks": len(tasks),
        "flows": len({task.flow.key for task in tasks}),
        "images_per_second": len(tasks) / executor.wall,
        "plain_images_per_second": len(tasks) / reloading.wall,
        "plain_images_per_second_without_reload": len(tasks) / without.wall,
        "plain_ratio": ratio(reloading, executor)["wall"],
        "plain_ratio_without_reload": ratio(without, executor)["wall"],
        "plain_cpu_ratio": ratio(reloading, executor)["cpu"],
        "plain_cpu_ratio_without_reload": ratio(without, executor)["cpu"],
        "plain_equal_pixel_share": min(equal_pixel_share(mine, plainly), equal_pixel_share(mine, again)),
    }


def loaded_library(tasks: Sequence[RenderTask], models: Path, dtype: torch.dtype) -> ModelLibrary:
    """Return a library that has read every model that tasks want."""
    library = ModelLibrary(models, dtype=dtype)
    for plan in map(_plan, tasks):
        _run(plan, library, only_loaders=True)
    return library


def render_plainly(tasks: Sequence[RenderTask], library: Any) -> Images:
    """Render tasks in their order, each by itself; ask for a library anew when one wants other files than the last."""
    images, there, current = Images(), None, None
    for task in tasks:
        plan = _plan(task)
        if plan.files != there:
            current, there = library(), plan.files
        images[task.sample_id] = _run(plan, current)
    return images


def render_with_executor(
    tasks: Sequence[RenderTask], models: Path, batch_size: int, dtype: torch.dtype
) -> Images:
    """Render tasks with an executor that has seen nothing yet."""
    return images_of(Executor(models, batch_size=batch_size, dtype=dtype).render(tasks))


def images_of(results: Any) -> Images:
    """Return the images of results.

    Raises:
        AssertionError: One of them failed: then there is nothing to compare.
    """
    images = Images()
    for result in results:
        assert result.image is not None, f"{result.sample_id}: {result.error}"
        images[result.sample_id] = result.image
    return images


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


def _plan(task: RenderTask) -> Plan:
    return plan_graph(task.flow.to_comfyui(task.prompt, task.seed, Schema.core()))


def _run(plan: Plan, library: Any, only_loaders: bool = False) -> Tensor:
    values: dict[str, tuple[Any, ...]] = {}
    with torch.inference_mode():
        for step in plan.steps:
            if step.node.loads or not only_loaders:
                linked = {name: values[key][slot] for name, (key, slot) in step.links.items()}
                values[step.key] = step.node.run([{**step.values, **linked}], library)[0]
    image: Tensor = torch.empty(0) if only_loaders else values[plan.outputs[0]][-1]
    return image
