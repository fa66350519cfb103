"""Which weights of a network a LoRA file means: its authors' names and diffusers' names, dots or underscores."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.layouts.flux import flux_places
from flowsmith.execution.layouts.mmdit import mmdit_places
from flowsmith.execution.layouts.places import Place
from flowsmith.execution.layouts.unet import unet_places
from flowsmith.execution.networks import Family


def places(network: nn.Module, family: Family | None = None) -> dict[str, Place]:
    """Return what can be changed in a network, by flattened name (see `flat`).

    Args:
        network: diffusers' denoising network, or a text network.
        family: Of a denoising network; adds its authors' names.
    """
    own = [
        name for name, part in network.named_modules() if isinstance(getattr(part, "weight", None), Tensor)
    ]
    config: Any = network.config
    others: Iterator[tuple[str, Place]]
    if family is None:
        others = iter(())
    elif family == "flux":
        others = flux_places(config.num_layers, config.num_single_layers)
    elif family == "sd3":
        others = mmdit_places(config.num_layers)
    else:
        names = [name for name, _ in network.named_modules()]
        others = unet_places(names, len(config.block_out_channels), config.layers_per_block)
    there = set(own)
    named = {flat(name): place for name, place in others if there.issuperset(place.modules)}
    return named | {flat(name): Place((name,)) for name in own}


def flat(name: str) -> str:
    """Bring a module's name to the form in which files of all namings meet."""
    name = name.removeprefix("text_model.").replace(".", "_").replace("_processor_to_", "_to_")
    return name.removesuffix("_0") if name.endswith("_to_out_0") else name


def tower_of(number: int, towers: Iterable[str], source: Path) -> str:
    """Return which text network a LoRA file means by a number.

    The first is a CLIP of any kind, the second bigG or, of Flux, T5, which kohya's files call the third.

    Args:
        number: From 1 on.
        towers: Names of the networks that are there.
        source: Named in errors.

    Raises:
        ModelFileError: There is none.
    """
    there = list(towers)
    meant = {1: ("l", "h", "g"), 2: ("g", "t5xxl"), 3: ("t5xxl",)}.get(number, ())
    for name in meant:
        if name in there:
            return name
    raise ModelFileError(
        f"{source}: changes text encoder {number}, which this CLIP lacks (it has {', '.join(there)}); "
        "use a LoRA of its family, or strength_clip=0"
    )
