"""The default text-to-image graph, as templates for flows."""

from typing import Any

from flowsmith.flows import Flow, Schema


def text_to_image(
    checkpoint: str, side: int, steps: int, cfg: float, sampler: str = "euler", negative: str = ""
) -> dict[str, Any]:
    """Return the graph in API format; the prompt is the positive text.

    Args:
        checkpoint: Name of the checkpoint.
        side: Pixels of the picture's sides.
        steps: Of the one sampling node.
        cfg: Its guidance.
        sampler: Its solver.
        negative: What it is guided away from.
    """
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    numbers = {"steps": steps, "cfg": cfg, "denoise": 1.0, "sampler_name": sampler, "scheduler": "normal"}
    nodes = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        "2": ("CLIPTextEncode", {"text": "{prompt}", "clip": ["1", 1]}),
        "3": ("CLIPTextEncode", {"text": negative, "clip": ["1", 1]}),
        "4": ("EmptyLatentImage", {"width": side, "height": side, "batch_size": 1}),
        "5": ("KSampler", {**links, **numbers}),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "flowsmith"}),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def text_to_image_flow(checkpoint: str, *numbers: Any, **more: Any) -> Flow:
    """Return the graph of `text_to_image` as a flow; that there is such a checkpoint is taken on trust."""
    schema = Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": [checkpoint]})
    return Flow.from_template(text_to_image(checkpoint, *numbers, **more), schema)
