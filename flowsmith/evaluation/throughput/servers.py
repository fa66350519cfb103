"""The executor against a ComfyUI server on the same machine: same checkpoint, same tasks."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from flowsmith.evaluation.throughput.clocks import timed
from flowsmith.evaluation.throughput.graphs import text_to_image_flow
from flowsmith.evaluation.throughput.plain_way import Images, equal_pixel_share, images_of
from flowsmith.execution import Executor, RenderTask
from flowsmith.execution.comfyui import ComfyUIExecutor

FLOWS, SIDE = 10, 64


def against_a_server(url: str, models: Path, checkpoint: str, tasks: int = 50) -> dict[str, Any]:
    """Render tasks over ten flows on a server and here.

    Both have rendered one sample before, so that models are loaded and libraries imported. "Without caching" no task
    shares a text, a seed or a flow's numbers with another, so that neither side can use what it computed before.

    Args:
        url: Address of the server.
        models: Its folder of models.
        checkpoint: File name of a checkpoint there.
        tasks: How many; a multiple of ten.
    """
    found: dict[str, Any] = {}
    for name, wanted in (
        ("comfyui", list(server_tasks(checkpoint, tasks))),
        ("comfyui_uncached", list(server_tasks(checkpoint, tasks, unlike=True))),
    ):
        first = RenderTask("first", wanted[0].flow, "before the clock starts", 1)
        server, here = ComfyUIExecutor([url]), Executor(models)
        images_of(server.render([first]))
        images_of(here.render([first]))
        theirs, slow = timed(partial(_render, server, wanted))
        mine, fast = timed(partial(_render, here, wanted))
        found |= {
            f"{name}_ratio": slow.wall / fast.wall,
            f"{name}_images_per_second": tasks / slow.wall,
            f"{name}_equal_pixel_share": equal_pixel_share(mine, theirs),
        }
    return found


def _render(renderer: Executor | ComfyUIExecutor, tasks: list[RenderTask]) -> Images:
    return images_of(renderer.render(tasks))


def server_tasks(checkpoint: str, count: int, unlike: bool = False) -> Iterator[RenderTask]:
    """Yield tasks over ten flows, each with as many prompts and seeds.

    Args:
        checkpoint: Name of the checkpoint.
        count: How many; a multiple of ten.
        unlike: Give each task its own texts, seed and guidance; otherwise tasks of one prompt share texts and seed.
    """
    for number in range(count):
        way, prompt = number % FLOWS, number // FLOWS
        guidance = 3.0 + way / 2 + (prompt / 100 if unlike else 0.0)
        negative = f"blurry, {number}" if unlike else "blurry"
        sampler, steps = ("euler", "dpmpp_2m")[way % 2], 8 + 2 * (way % 3)
        flow = text_to_image_flow(checkpoint, SIDE, steps, guidance, sampler, negative)
        told, seed = (f"a cat, {number}", number + 1) if unlike else (f"a cat, {prompt}", prompt + 1)
        yield RenderTask(str(number), flow, told, seed)
