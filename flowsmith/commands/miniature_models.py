"""Flows over the miniature's models run in this project alone: ComfyUI has no loader for them."""

from collections.abc import Iterable, Iterator

from flowsmith.errors import FlowsmithError
from flowsmith.flows import Flow

_START = "mini_"
WHERE = (
    "models of the miniature, small networks that ComfyUI cannot load; such flows do not run in ComfyUI, but do with "
    "`flowsmith run … --models miniature/weights`"
)


class MiniatureModelsError(FlowsmithError):
    """A flow over the miniature's models is to run in ComfyUI."""


def miniature_models(flows: Iterable[Flow]) -> list[str]:
    """Return the miniature's model files that flows name, sorted."""
    return sorted({value for flow in flows for value in _names(flow) if is_miniature(value)})


def is_miniature(value: object) -> bool:
    """Return whether a value is the name of one of the miniature's model files."""
    return isinstance(value, str) and value.startswith(_START)


def _names(flow: Flow) -> Iterator[str]:
    for node in flow.nodes:
        for name, value in node.inputs:
            if name.endswith("_name") and isinstance(value, str):
                yield value
