"""What kinds of component a flow has: the values that are of a kind, and the nodes that are."""

from dataclasses import dataclass

from flowsmith.flows import Flow, Link, Node, Schema
from flowsmith.flows.roles import Role, node_roles

SAMPLERS = ("KSampler", "KSamplerAdvanced")


@dataclass(frozen=True)
class Kind:
    """One kind of component.

    Attributes:
        inputs: Inputs whose values (or links) are of this kind, as "Class.input"; "Class.*" are all of the class's
            values, "*.input" the input of every class.
        nodes: Classes whose nodes are of this kind: a flow may have one more than another.
        texts: The role of the texts that are of this kind.
        later: Only nodes that work on what another of these classes made: a second pass, not the first.
    """

    inputs: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    texts: Role | None = None
    later: bool = False

    def owns(self, node: Node, name: str, role: Role | None) -> bool:
        """Return whether an input is of this kind; role is what the node's conditioning is used for."""
        if name == "text":
            return role is not None and role == self.texts
        linked = isinstance(node.get(name), Link)
        return bool(
            {f"{node.class_type}.{name}", f"*.{name}"} & {*self.inputs}
            or (f"{node.class_type}.*" in self.inputs and not linked)
        )


def _of_samplers(*names: str) -> tuple[str, ...]:
    return tuple(f"{sampler}.{name}" for sampler in SAMPLERS for name in names)


KINDS = {
    "second_vae": Kind(inputs=("*.vae",)),
    "checkpoint": Kind(inputs=("CheckpointLoaderSimple.ckpt_name",)),
    "lora": Kind(inputs=("LoraLoader.lora_name",), nodes=("LoraLoader",)),
    "lora_strength": Kind(inputs=("LoraLoader.strength_model", "LoraLoader.strength_clip")),
    "clip_skip": Kind(inputs=("CLIPSetLastLayer.*",), nodes=("CLIPSetLastLayer",)),
    "prompt_wording": Kind(texts="positive"),
    "negative": Kind(texts="negative"),
    "sampler": Kind(inputs=_of_samplers("sampler_name")),
    "scheduler": Kind(inputs=_of_samplers("scheduler")),
    "steps": Kind(inputs=_of_samplers("steps", "start_at_step", "end_at_step")),
    "guidance": Kind(inputs=_of_samplers("cfg")),
    "rescale_cfg": Kind(inputs=("RescaleCFG.*",), nodes=("RescaleCFG",)),
    "resolution": Kind(inputs=("EmptyLatentImage.width", "EmptyLatentImage.height")),
    "second_pass": Kind(inputs=_of_samplers("denoise"), nodes=SAMPLERS, later=True),
    "upscale_latent": Kind(inputs=("LatentUpscaleBy.*",), nodes=("LatentUpscaleBy",)),
    "upscale_image": Kind(inputs=("ImageScaleBy.*",), nodes=("ImageScaleBy",)),
    "upscale_model": Kind(inputs=("UpscaleModelLoader.*",), nodes=("ImageUpscaleWithModel",)),
    "sharpen": Kind(inputs=("ImageSharpen.*",), nodes=("ImageSharpen",)),
}
"""Every kind that a fair world has an effect of. Which VAE decodes is asked before which checkpoint is used, or flows
that differ in the former alone would seem to differ in the latter."""


def roles_of(flow: Flow, schema: Schema) -> list[Role | None]:
    """Return what each node's conditioning is used for; None for a node that makes none."""
    makes = ["CONDITIONING" in schema.node(node.class_type).outputs for node in flow.nodes]
    return node_roles(flow.nodes, makes)
