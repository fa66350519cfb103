"""Text encoders from tensors: those within a checkpoint, and files of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from torch import Tensor

from flowsmith.execution.dtypes import Dtypes
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.layouts.clip import ClipName, clip_depth, clip_tower, is_clip
from flowsmith.execution.layouts.t5 import is_t5, t5_tower
from flowsmith.execution.model_files import read_tensors, under
from flowsmith.execution.networks import NAMES, Family
from flowsmith.execution.text import TextEncoder, Tower
from flowsmith.execution.text_uses import USES, join_of

TextKind: TypeAlias = Literal["stable_diffusion", "sdxl", "sd3", "flux"]
"""What text encoders are for, in the words of CLIPLoader and DualCLIPLoader."""

TextTensors: TypeAlias = Mapping[str, Mapping[str, Tensor]]
"""Tensors of text networks by `TextEncoder`'s names."""

_NEW = {
    name: f"text_encoders.{part}.transformer."
    for name, part in (("l", "clip_l"), ("g", "clip_g"), ("t5xxl", "t5xxl"))
}
_PREFIXES: dict[Family, dict[str, str]] = {
    "sd1": {"l": "cond_stage_model.transformer."},
    "sd2": {"h": "cond_stage_model.model."},
    "sdxl": {"l": "conditioner.embedders.0.transformer.", "g": "conditioner.embedders.1.model."},
    "sdxl_refiner": {"g": "conditioner.embedders.0.model."},
    "sd3": _NEW,
    "flux": {name: _NEW[name] for name in ("l", "t5xxl")},
}
"""Where a checkpoint of a family keeps its text networks."""


def checkpoint_text(
    family: Family, tensors: Mapping[str, Tensor], path: Path, tokenizer: str, dtypes: Dtypes
) -> dict[str, Tower]:
    """Build the text networks that a checkpoint of a family holds; there may be none.

    Args:
        family: Of its diffusion model.
        tensors: Of the file.
        path: Named in errors.
        tokenizer: Folder or hub id of T5's tokenizer.
        dtypes: Number types.

    Raises:
        ModelFileError: One is incomplete.
    """
    parts = {name: under(prefix, tensors) for name, prefix in _PREFIXES[family].items()}
    found = {name: part for name, part in parts.items() if part}
    if found and family != "sd3" and (missing := parts.keys() - found.keys()):
        name = min(missing)
        raise ModelFileError(
            f"{path}: holds the text encoder {', '.join(found)}, but nothing under {_PREFIXES[family][name]} for "
            f"{name}; use a whole {NAMES[family]}"
        )
    return towers(family, found, path, tokenizer, dtypes)


def towers(
    family: Family, tensors: TextTensors, path: Path, tokenizer: str, dtypes: Dtypes
) -> dict[str, Tower]:
    """Build a family's text networks from their tensors, in the family's order."""
    use, built = USES[family], {}
    for name in _PREFIXES[family]:
        if name not in tensors:
            continue
        if name == "t5xxl":
            built[name] = t5_tower(tensors[name], path, tokenizer, use.t5_length, dtypes.t5)
        else:
            projected = use.l_projected or name != "l"
            built[name] = clip_tower(
                cast(ClipName, name), tensors[name], path, use.layer, use.normed, projected, dtypes.clip
            )
    return built


def read_text_encoder(
    paths: Sequence[Path], key: str, kind: str, tokenizer: str, dtypes: Dtypes
) -> TextEncoder:
    """Load text networks from files of their own, in any order.

    Args:
        paths: One file a network.
        key: Names the weights.
        kind: What they are for, a `TextKind`.
        tokenizer: Folder or hub id of T5's tokenizer.
        dtypes: Number types.

    Raises:
        ModelFileError: A file is broken, or they are not the text networks of that kind.
    """
    if kind not in get_args(TextKind):
        raise ModelFileError(
            f"type={kind!r}: no text encoder of it can be run; use {', '.join(get_args(TextKind))}"
        )
    found = _named([(path, read_tensors(path)) for path in paths])
    family = _family(cast(TextKind, kind), found, paths)
    built = towers(family, found, paths[0], tokenizer, dtypes)
    return TextEncoder(key, built, join_of(family, built), key)


def _named(files: Sequence[tuple[Path, Mapping[str, Tensor]]]) -> dict[str, Mapping[str, Tensor]]:
    """Tell which network each file holds: T5, or of CLIPs L, H or G by depth (12, 24 and 32 layers).

    Of two CLIPs that are both no deeper than L (models made small), the deeper and then wider one is G.
    """
    named: dict[str, Mapping[str, Tensor]] = {}
    for path, tensors in files:
        if is_t5(tensors):
            named["t5xxl"] = tensors
        elif not is_clip(tensors):
            raise ModelFileError(f"{path}: holds neither a CLIP text encoder nor a T5; use a file of one")
    for tensors in sorted((tensors for _, tensors in files if is_clip(tensors)), key=_size):
        depth = clip_depth(tensors)
        named["g" if "l" in named or depth > _H_DEPTH else "h" if depth > _L_DEPTH else "l"] = tensors
    if len(named) < len(files):
        raise ModelFileError(
            f"{', '.join(str(path) for path, _ in files)}: hold the same kind of text encoder twice; use files of "
            "different ones"
        )
    return named


def _size(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    return clip_depth(tensors), sum(tensor.numel() for tensor in tensors.values())


def _family(kind: TextKind, found: Mapping[str, Any], paths: Sequence[Path]) -> Family:
    """Return the family whose text networks these are."""
    names = set(found)
    allowed: dict[TextKind, dict[Family, tuple[set[str], set[str]]]] = {  # must have, may have
        "stable_diffusion": {"sd1": ({"l"}, {"l"}), "sd2": ({"h"}, {"h"}), "sdxl_refiner": ({"g"}, {"g"})},
        "sdxl": {"sdxl": ({"l", "g"}, {"l", "g"}), "sdxl_refiner": ({"g"}, {"g"})},
        "sd3": {"sd3": (set(), {"l", "g", "t5xxl"})},
        "flux": {"flux": ({"l", "t5xxl"}, {"l", "t5xxl"})},
    }
    for family, (needed, known) in allowed[kind].items():
        if needed <= names <= known:
            return family
    wanted = " or ".join(
        f"{' and '.join(sorted(known))} for {NAMES[family]}" for family, (_, known) in allowed[kind].items()
    )
    raise ModelFileError(
        f"{', '.join(map(str, paths))}: hold the text encoders {', '.join(sorted(names))}; type={kind!r} wants {wanted}"
    )


_L_DEPTH, _H_DEPTH = 22, 30
