"""An installation with models of two families, and graphs for it."""

import copy
from typing import Any

from flowsmith.flows import Flow, Schema
from flowsmith.flows.building.installed import Models
from flowsmith.flows.building.models_yaml import ModelFile
from tests.flows.editor_graphs import sent_graph

FAMILIES = {
    "checkpoints/old_a.safetensors": ModelFile("sd1"),
    "checkpoints/old_b.safetensors": ModelFile("sd1"),
    "checkpoints/big_a.safetensors": ModelFile("sdxl"),
    "checkpoints/big_b.safetensors": ModelFile("sdxl"),
    "checkpoints/riddle.safetensors": ModelFile(),
    "loras/ink.safetensors": ModelFile("sd1", ("ink drawing",), (0.2, 0.4)),
    "loras/clay.safetensors": ModelFile("sd1"),
    "loras/neon.safetensors": ModelFile("sdxl", ("neon {glow}",)),
    "loras/riddle.safetensors": ModelFile(),
}
MODELS = Models(FAMILIES, tuple(FAMILIES))
_NEW: dict[str, Any] = {
    "LoadImage": {"input": {"required": {"image": [["a.png"]]}}, "output": ["IMAGE", "MASK"]},
    "EmptyPicker": {"input": {"required": {"size": [["512 x 512"]]}}, "output": ["LATENT"]},
    "ControlNetLoader": {"input": {"required": {"control_net_name": [["c.pth"]]}}, "output": ["CONTROL_NET"]},
    "ControlNetApply": {
        "input": {"required": {
            "conditioning": ["CONDITIONING"], "control_net": ["CONTROL_NET"], "image": ["IMAGE"],
        }},
        "output": ["CONDITIONING"],
    },
    "SaveAnimatedWEBP": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
    "CreateVideo": {"input": {"required": {"images": ["IMAGE"]}}, "output": ["VIDEO"], "output_node": True},
    "ToSound": {"input": {"required": {"images": ["IMAGE"]}}, "output": ["AUDIO"], "output_node": True},
    # What a node could take is no matter, but what it is given.
    "Describe": {
        "input": {"required": {"clip": ["CLIP"], "topic": ["STRING"]}, "optional": {"sound": ["AUDIO"]}},
        "output": ["STRING"],
    },
    "CloudPaint": {
        "input": {"required": {"prompt": ["STRING"], "seed": ["INT", {"default": 0, "min": 0, "max": 9}]}},
        "output": ["IMAGE"], "python_module": "comfy_api_nodes.nodes_paint",
    },
}  # fmt: skip


def installation() -> Schema:
    """The project's nodes and some more, with the models above."""
    files = {
        target: [name.removeprefix(f"{folder}/") for name in FAMILIES if name.startswith(folder)]
        for target, folder in (
            ("CheckpointLoaderSimple.ckpt_name", "checkpoints"),
            ("LoraLoader.lora_name", "loras"),
        )
    }
    return Schema.from_object_info(Schema.core().to_object_info() | _NEW).restrict(choices=files)


def graph(
    checkpoint: str = "old_a.safetensors", loras: tuple[str, ...] = (), **sampler: Any
) -> dict[str, Any]:
    """A plain graph in API format, LoRAs one upon the other."""
    made = copy.deepcopy(sent_graph())
    made["4"]["inputs"]["ckpt_name"] = checkpoint
    made["3"]["inputs"] |= sampler
    model, clip = ["4", 0], ["4", 1]
    for number, name in enumerate(loras):
        inputs = {
            "lora_name": name,
            "strength_model": 1.0,
            "strength_clip": 1.0,
            "model": model,
            "clip": clip,
        }
        made[f"lora{number}"] = {"class_type": "LoraLoader", "inputs": inputs}
        model, clip = [f"lora{number}", 0], [f"lora{number}", 1]
    made["3"]["inputs"]["model"] = model
    for text in ("6", "7"):
        made[text]["inputs"]["clip"] = clip
    return made


def flow(schema: Schema, *args: Any, **kwargs: Any) -> Flow:
    """`graph` as a templated flow."""
    made = graph(*args, **kwargs)
    made["6"]["inputs"]["text"] = "{prompt}"
    return Flow.from_template(made, schema)
