"""Running nodes one by one, without executor and flow."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowsmith.execution import ModelLibrary
from flowsmith.execution.models import Checkpoint, DiffusionModel
from flowsmith.execution.nodes import find_node
from flowsmith.execution.text import TextEncoder
from flowsmith.execution.vae import Vae

Graph = dict[str, Any]
# What ComfyUI's recorded outputs were made from.
RECORDED: dict[str, Any] = {
    "ckpt_name": "tiny.safetensors",
    "positive": "a (red:1.3) cat",
    "negative": "blurry",
    "seed": 7,
    "steps": 6,
    "cfg": 5.0,
}


def evaluate(library: ModelLibrary, nodes: Graph, order: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Run nodes in the given order; return what each puts out."""
    values: dict[str, tuple[Any, ...]] = {}
    with torch.inference_mode():
        for name in order:
            inputs = nodes[name]["inputs"]
            row = {k: values[v[0]][v[1]] if isinstance(v, list) else v for k, v in inputs.items()}
            values[name] = find_node(nodes[name]["class_type"]).run([row], library)[0]
    return values


def run(library: ModelLibrary, name: str, **inputs: Any) -> Any:
    """Run one node on one row; return its first output."""
    with torch.inference_mode():
        return find_node(name).run([inputs], library)[0][0]


def whole(checkpoint: Checkpoint) -> tuple[DiffusionModel, TextEncoder, Vae]:
    """Return the parts of a checkpoint that has all three."""
    assert checkpoint.text is not None
    assert checkpoint.vae is not None
    return checkpoint.model, checkpoint.text, checkpoint.vae


def relative(got: Tensor, expected: Tensor) -> float:
    """Return the relative distance in the Euclidean norm."""
    assert got.shape == expected.shape
    return float((got - expected).norm() / expected.norm())
