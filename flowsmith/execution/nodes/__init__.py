"""Node classes that can be executed, one file each.

To add one, write a file with ``@register("ClassName")`` and import it here.
"""

from flowsmith.execution.nodes import (
    checkpoint_loader_simple,
    clip_set_last_layer,
    clip_text_encode,
    empty_latent_image,
    image_scale_by,
    image_sharpen,
    image_upscale_with_model,
    ksampler,
    ksampler_advanced,
    latent_upscale_by,
    lora_loader,
    rescale_cfg,
    save_image,
    upscale_model_loader,
    vae_decode,
    vae_encode,
    vae_loader,
)
from flowsmith.execution.nodes.registry import NODES, NodeType, Row, find_node

__all__ = [
    "NODES",
    "NodeType",
    "Row",
    "checkpoint_loader_simple",
    "clip_set_last_layer",
    "clip_text_encode",
    "empty_latent_image",
    "find_node",
    "image_scale_by",
    "image_sharpen",
    "image_upscale_with_model",
    "ksampler",
    "ksampler_advanced",
    "latent_upscale_by",
    "lora_loader",
    "rescale_cfg",
    "save_image",
    "upscale_model_loader",
    "vae_decode",
    "vae_encode",
    "vae_loader",
]
