"""From what links and graphs carry to the typed inputs of a node."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, get_origin, get_type_hints

from torch import Tensor

from flowsmith.execution.errors import ExecutionError

_KINDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Input:
    """One input of a node: its name, the type it is annotated with, and whether it has no default."""

    name: str
    kind: Any
    required: bool


def inputs_of(cls: Any) -> tuple[Input, ...]:
    """Return the inputs that a dataclass declares."""
    hints = get_type_hints(cls)
    return tuple(Input(field.name, hints[field.name], field.default is MISSING) for field in fields(cls))


def read_inputs(node: str, inputs: Sequence[Input], row: Mapping[str, Any]) -> dict[str, Any]:
    """Read a row's values as what they are declared to be; what is not declared is of no account.

    Raises:
        ExecutionError: An input is missing or of another kind.
    """
    values = {}
    for one in inputs:
        if one.name in row:
            values[one.name] = _converted(node, one, row[one.name])
        elif one.required:
            raise ExecutionError(f"{node}: {one.name} is missing; give it a value or a link")
    return values


def alike(values: Mapping[str, Any]) -> Hashable:
    """Return what rows of a node must share to be run together: values, shapes of tensors, keys of models."""
    return tuple((name, _likeness(value)) for name, value in values.items())


def _converted(node: str, one: Input, value: Any) -> Any:
    name, kind = one.name, one.kind
    if kind is str:
        return str(value)
    if kind in _KINDS:
        try:
            return kind(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ExecutionError(f"{node}: {name}={value!r} is not {_KINDS[kind]}; give one") from error
    if kind is Any or isinstance(value, kind if isinstance(kind, UnionType) else get_origin(kind) or kind):
        return value
    if value is None:
        raise ExecutionError(
            f"{node}: {name} is linked to a part that the model file does not hold; load it from a file of its own "
            "(CLIPLoader, DualCLIPLoader, VAELoader)"
        )
    raise ExecutionError(
        f"{node}: {name} is linked to a {type(value).__name__}; link it to an output of its own kind"
    )


def _likeness(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return getattr(value, "key", value if isinstance(value, Hashable) else None)
