"""Node classes that can be executed, in files by kind.

To add one, write a class with ``@node("ClassName")`` into the file of its kind; a new file is imported here.
"""

from flowsmith.execution.nodes import (
    conditioning,
    custom_sampling,
    image,
    latent,
    loaders,
    model_patches,
    model_sampling,
    primitives,
    sampling,
    schedules,
    text,
    upscaling,
    vae,
)
from flowsmith.execution.nodes.registry import NODES, NodeType, Row, find_node

__all__ = [
    "NODES",
    "NodeType",
    "Row",
    "conditioning",
    "custom_sampling",
    "find_node",
    "image",
    "latent",
    "loaders",
    "model_patches",
    "model_sampling",
    "primitives",
    "sampling",
    "schedules",
    "text",
    "upscaling",
    "vae",
]
