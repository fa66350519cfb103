"""One call of a diffusers pipeline per sample, reported beside the plain way: other schedulers, so other pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from flowsmith.evaluation.throughput.clocks import Seconds, timed
from flowsmith.execution import RenderTask
from flowsmith.flows import Schema

_SCHEDULERS = {
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "uni_pc": "UniPCMultistepScheduler",
}
_PLAIN = {
    "CheckpointLoaderSimple",
    "CLIPTextEncode",
    "EmptyLatentImage",
    "KSampler",
    "VAEDecode",
    "SaveImage",
}


def pipeline_tasks(tasks: Sequence[RenderTask]) -> list[RenderTask]:
    """Return those that one call of a pipeline can do: text to image in one pass, with a solver it knows."""
    return [task for task in tasks if _settings(task) is not None]


def render_with_pipelines(
    tasks: Sequence[RenderTask], models: Path, dtype: torch.dtype = torch.float32
) -> Seconds:
    """Call a pipeline for each task, checkpoints loaded before the clock starts; return what all took."""
    import diffusers

    diffusers.utils.logging.disable_progress_bar()
    settings = [found for task in tasks if (found := _settings(task)) is not None]
    pipelines = {
        name: diffusers.StableDiffusionPipeline.from_pretrained(
            models / "checkpoints" / name,
            torch_dtype=dtype,
            safety_checker=None,
            requires_safety_checker=False,
        )
        for name in {found["checkpoint"] for found in settings}
    }
    for pipeline in pipelines.values():
        pipeline.set_progress_bar_config(disable=True)

    def call_all() -> None:
        for found in settings:
            pipeline = pipelines[found["checkpoint"]]
            kind = getattr(diffusers, _SCHEDULERS[found["sampler"]])
            pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
            generator = torch.Generator().manual_seed(found["seed"] % 2**63)
            pipeline(**found["call"], generator=generator, output_type="np")

    return timed(call_all)[1]


def _settings(task: RenderTask) -> dict[str, Any] | None:
    """Return what a pipeline is told for a task, None if it cannot do it."""
    graph = task.flow.to_comfyui(task.prompt, task.seed, Schema.core())
    if {node["class_type"] for node in graph.values()} != _PLAIN:
        return None
    nodes = {name: node["inputs"] for name, node in graph.items()}
    by_class: dict[str, list[dict[str, Any]]] = {}
    for node in graph.values():
        by_class.setdefault(node["class_type"], []).append(node["inputs"])
    (size,), samplers, checkpoints = (
        by_class[name] for name in ("EmptyLatentImage", "KSampler", "CheckpointLoaderSimple")
    )
    sampler = samplers[0]
    if len(samplers) > 1 or len(checkpoints) > 1 or sampler["sampler_name"] not in _SCHEDULERS:
        return None
    texts = {side: nodes[sampler[side][0]]["text"] for side in ("positive", "negative")}
    call = {
        "prompt": texts["positive"],
        "negative_prompt": texts["negative"],
        "num_inference_steps": sampler["steps"],
        "guidance_scale": sampler["cfg"],
        "width": size["width"],
        "height": size["height"],
    }
    return {
        "checkpoint": checkpoints[0]["ckpt_name"],
        "sampler": sampler["sampler_name"],
        "seed": task.seed,
        "call": call,
    }
