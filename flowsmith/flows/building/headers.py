"""Names and shapes of the tensors in a safetensors file, without reading a tensor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Header:
    """What a model file says of itself.

    Attributes:
        shapes: Of its tensors, by name.
        metadata: Texts that whoever made it put there.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_header(path: Path | str) -> Header | None:
    """Read the header of a model file; None if it is no whole safetensors file."""
    from safetensors import SafetensorError, safe_open

    if not str(path).lower().endswith((".safetensors", ".sft")):
        return None  # pickles are never opened
    try:
        with safe_open(str(path), "numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return Header(shapes, dict(file.metadata() or {}))
    except (SafetensorError, OSError, ValueError):
        return None
