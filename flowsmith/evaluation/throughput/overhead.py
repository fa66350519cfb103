"""What the executor adds to the denoising itself: planning, books, caches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsmith.evaluation.throughput.clocks import timed
from flowsmith.evaluation.throughput.graphs import text_to_image_flow
from flowsmith.evaluation.throughput.plain_way import Images, images_of
from flowsmith.execution import Executor, ModelLibrary, RenderTask
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.models import Checkpoint
from flowsmith.execution.nodes import NODES, NodeType, Row
from flowsmith.execution.nodes.sampling_batch import Sampling, sample
from flowsmith.execution.nodes.values import EmptyLatent
from flowsmith.execution.samplers import find_sampler
from flowsmith.execution.schedules import sampling_sigmas

STEPS, GUIDANCE, SIDE = 20, 4.0, 64


def overhead(models: Path, checkpoint: str, rows: int = 16, repeats: int = 5) -> dict[str, Any]:
    """Compare the executor with a loop written for one flow: encode, denoise, decode, round.

    Both take turns on new prompts and seeds, with models loaded; the fastest of each count, since what else goes on
    on a machine only slows them down.

    Args:
        models: Folder of models.
        checkpoint: Name of the checkpoint.
        rows: Samples in the one batch.
        repeats: Turns.

    Returns:
        ``overhead_share`` of the time on the wall, the same of processor time, and, less disturbed by what else goes
        on, which share the executor spends outside of nodes.
    """
    executor = Executor(models, batch_size=rows)
    flow = text_to_image_flow(checkpoint, SIDE, STEPS, GUIDANCE)
    mine, bare, inside = [], [], 0.0
    for turn in range(repeats + 1):
        tasks = [RenderTask(str(k), flow, f"{k} red stars, {turn}", 1000 * turn + k + 1) for k in range(rows)]
        with _timed_nodes() as spent:
            rendered, seconds = timed(partial(_render, executor, tasks))
        mine.append(seconds)
        inside += sum(spent) if turn else 0.0
        loaded = executor.library.checkpoint(checkpoint)
        looped, seconds = timed(partial(_loop, loaded, tasks))
        bare.append(seconds)
        assert all(torch.equal(rendered[str(k)], looped[k]) for k in range(rows)), "not the same work"
    # The first turn loads and imports.
    shares = {
        name: min(getattr(s, name) for s in mine[1:]) / min(getattr(s, name) for s in bare[1:]) - 1
        for name in ("wall", "cpu")
    }
    return {
        "overhead_share": shares["wall"],
        "overhead_cpu_share": shares["cpu"],
        "overhead_outside_nodes_share": sum(seconds.cpu for seconds in mine[1:]) / inside - 1,
        "overhead_rows": rows,
    }


@contextmanager
def _timed_nodes() -> Iterator[list[float]]:
    """Note the processor seconds of every run of a node."""
    spent: list[float] = []

    def watched(node: NodeType) -> NodeType:
        def run(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
            outputs, seconds = timed(lambda: node.run(rows, library))
            spent.append(seconds.cpu)
            return outputs

        return replace(node, run=run)

    plain = dict(NODES)
    NODES.update({name: watched(node) for name, node in plain.items()})
    try:
        yield spent
    finally:
        NODES.update(plain)


def _render(executor: Executor, tasks: list[RenderTask]) -> Images:
    return images_of(executor.render(tasks))


def _loop(checkpoint: Checkpoint, tasks: list[RenderTask]) -> list[Tensor]:
    model, text, vae = checkpoint.model, checkpoint.text, checkpoint.vae
    assert text is not None
    assert vae is not None
    sampler = find_sampler("euler")
    sigmas = sampling_sigmas(model.table, "normal", STEPS)
    with torch.inference_mode():
        *positive, negative = map(Conditioning.of, text.encode([*(task.prompt for task in tasks), ""]))
        batch = [
            Sampling(model, told, negative, GUIDANCE, sampler, sigmas, EmptyLatent(SIDE, SIDE), task.seed)
            for told, task in zip(positive, tasks, strict=True)
        ]
        images = vae.decode(torch.cat([latents for latents, _ in sample(batch)]))
        return [(image * 255.0).clamp(0, 255).to(torch.uint8) for image in images]
