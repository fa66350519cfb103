"""Which flows make a picture from a prompt alone: what ComfyGen's authors kept, check by check."""

from dataclasses import dataclass

from flowsmith.flows.building.families import base_of
from flowsmith.flows.building.installed import MODEL_INPUTS, Models
from flowsmith.flows.building.model_use import families
from flowsmith.flows.flow import Flow, Link
from flowsmith.flows.node_type import NodeType
from flowsmith.flows.schema import Schema

_CONTROL = {"CONTROL_NET", "CLIP_VISION", "CLIP_VISION_OUTPUT", "STYLE_MODEL", "IPADAPTER"}
_OTHER = {"AUDIO", "MESH", "VOXEL", "LOAD_3D", "LATENT_AUDIO"}
_VIDEO = ("video", "animated", "webm")


@dataclass(frozen=True)
class Reason:
    """Why a file is no part of a corpus.

    Attributes:
        kind: Under which it is counted.
        detail: In words.
    """

    kind: str
    detail: str


def unfit(flow: Flow, prompt: str | None, literals: tuple[str, ...], schema: Schema) -> Reason | None:
    """Return why a flow is no text-to-image flow, or None.

    Args:
        flow: An imported flow.
        prompt: What became ``{prompt}``, or None.
        literals: Positive texts that say the same whatever the prompt.
        schema: Under which it is valid.
    """
    for node, types in zip(flow.nodes, _carried(flow, schema), strict=True):
        node_type = schema.node(node.class_type)
        if any(word in node.class_type.lower() for word in _VIDEO) or "VIDEO" in types:
            return Reason("video", f"{node.class_type} makes a video")
        if types & _OTHER:
            return Reason("no_picture", f"{node.class_type} makes sound or solids")
        if types & _CONTROL:
            return Reason("control_image", f"{node.class_type} serves to be led by a picture")
        if node_type.module.startswith("comfy_api_nodes"):
            return Reason("paid_service", f"{node.class_type} calls a service outside")
        if _reads_picture(node_type, any(isinstance(value, Link) for _, value in node.inputs)):
            return Reason("picture_input", f"{node.class_type} reads a picture")
    if not any(_samples(schema.node(node.class_type)) for node in flow.nodes):
        return Reason("no_sampling", "no node samples a picture")
    if prompt is None:
        return Reason("no_prompt", "no positive text")
    if literals:
        return Reason("fixed_text", f"{literals[0][:60]!r} would be in every picture, whatever the prompt")
    return None


def mixed(flow: Flow, schema: Schema, models: Models) -> Reason | None:
    """Return which LoRA is on a model of another family, or None; unknown families leave no doubt to act on."""
    for node, below in zip(flow.nodes, families(flow, schema, models), strict=True):
        for name, value in node.inputs:
            if MODEL_INPUTS.get(name) != "loras" or not isinstance(value, str):
                continue
            family = models.family("loras", value)
            if family is not None and below and base_of(family) not in map(base_of, below):
                return Reason(
                    "families_mixed", f"{value} is of {family}, on a model of {', '.join(sorted(below))}"
                )
    return None


def _carried(flow: Flow, schema: Schema) -> list[set[str]]:
    """Return the types that each node gives to others; of an output node, all that it makes."""
    types = [schema.node(node.class_type) for node in flow.nodes]
    carried = [set(node_type.outputs) if node_type.is_output else set[str]() for node_type in types]
    for node in flow.nodes:
        for _, link in node.links():
            carried[link.node].add(types[link.node].outputs[link.slot])
    return carried


def _reads_picture(node_type: NodeType, linked: bool) -> bool:
    """Return whether a picture, mask or latent comes from a file or a camera; what is made empty does not."""
    makes = bool({"IMAGE", "MASK", "LATENT"} & set(node_type.outputs))
    chosen = any(spec.kind in ("choice", "text", "widget") for spec in node_type.inputs)
    return makes and chosen and not linked and "empty" not in node_type.name.lower()


def _samples(node_type: NodeType) -> bool:
    return node_type.seed_input is not None or any(spec.type == "SAMPLER" for spec in node_type.inputs)
