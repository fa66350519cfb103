"""How many pixels flow through a node, and how many of them it samples.

object_info does not say what a node does to a picture's size; this table does. Areas are nominal pixels:
width x height x scale², without the rounding to whole latents or pixels that a renderer does (less than one
in each direction and step). How much an upscale model enlarges is not in its name: the domain says it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowsmith.flows.flow import Link, Node
from flowsmith.flows.stages import LATENT, STAGED, START, use_of

if TYPE_CHECKING:
    from flowsmith.flows.domain import Domain

SIZED_TYPES = ("LATENT", "IMAGE")


@dataclass(frozen=True)
class SizeRule:
    """What a node class does to the area of a latent or image.

    Attributes:
        through: The link input whose area comes out, or None for a source.
        source: Inputs that give a source its width and height.
        scale: Input whose square multiplies the area.
        upscaler: Link input to an upscale model, whose factor's square multiplies the area.
        file: Input that names an upscale model; such a node has no area, but a factor.
        steps: Input that says how often the area is sampled; such a node turns an empty latent into a
            picture.
        denoise: Input that must have its full value where what is sampled is still empty.
        full: That value.
    """

    through: str | None = None
    source: tuple[str, str] | None = None
    scale: str | None = None
    upscaler: str | None = None
    file: str | None = None
    steps: str | None = None
    denoise: str | None = None
    full: float = 1.0


SIZE_RULES: dict[str, SizeRule] = {
    "EmptyLatentImage": SizeRule(source=("width", "height")),
    "KSampler": SizeRule(through="latent_image", steps="steps", denoise="denoise"),
    "LatentUpscaleBy": SizeRule(through="samples", scale="scale_by"),
    "VAEDecode": SizeRule(through="samples"),
    "ImageScaleBy": SizeRule(through="image", scale="scale_by"),
    "SaveImage": SizeRule(through="images"),
    "VAEEncode": SizeRule(through="pixels"),
    "UpscaleModelLoader": SizeRule(file="model_name"),
    "ImageUpscaleWithModel": SizeRule(through="image", upscaler="upscale_model"),
    "ImageSharpen": SizeRule(through="image"),
    "EmptySD3LatentImage": SizeRule(source=("width", "height")),
    "VAEDecodeTiled": SizeRule(through="samples"),
    "VAEEncodeTiled": SizeRule(through="pixels"),
    "ImageBlur": SizeRule(through="image"),
    "ImageInvert": SizeRule(through="image"),
    "PreviewImage": SizeRule(through="images"),
    STAGED: SizeRule(through=LATENT, steps="steps", denoise=START, full=0),
}


@dataclass(frozen=True)
class Size:
    """What a node puts out.

    Attributes:
        area: Nominal pixels; 0 for nodes without latents and images.
        pixel_steps: Steps x pixels that the node samples itself.
        sampled: Whether what comes out has been sampled since it was empty.
        scale: What an upscale model multiplies an area by; 1 for other nodes.
    """

    area: float = 0.0
    pixel_steps: float = 0.0
    sampled: bool = False
    scale: float = 1.0


def flow_sizes(nodes: Sequence[Node], domain: "Domain") -> list[Size]:
    """Return the size of what each node puts out.

    A way in two parts (see `stages`) counts its steps once, where it ends: the part that leaves noise counts
    none. (If several nodes go on from one part, that is a little too much, never too little.)

    Args:
        nodes: In an order in which links point back, as in a `Flow`.
        domain: Knows how many times wider and higher a picture comes out of an upscale model (a file that it
            does not list counts as 1), and whether parts are kept together.
    """
    sizes: list[Size] = []
    for node in nodes:
        rule = SIZE_RULES.get(node.class_type)
        if rule is None or rule.file:
            file = str(node.get(rule.file)) if rule and rule.file else ""
            sizes.append(Size(scale=domain.upscale_factors.get(file, 1.0) ** 2))
            continue
        through = node.get(rule.through) if rule.through else None
        before = sizes[through.node] if isinstance(through, Link) else Size()
        area = before.area
        if rule.source:
            area = _number(node, rule.source[0]) * _number(node, rule.source[1])
        if rule.scale:
            area *= _number(node, rule.scale) ** 2
        upscaler = node.get(rule.upscaler) if rule.upscaler else None
        if isinstance(upscaler, Link):
            area *= sizes[upscaler.node].scale
        counted_later = domain.sample_empty_latents and use_of(node) == "first"
        steps = _number(node, rule.steps) if rule.steps and not counted_later else 0.0
        sizes.append(Size(area, steps * area, before.sampled or rule.steps is not None))
    return sizes


def _number(node: Node, name: str) -> float:
    value = node.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
