"""What a node class takes: one record per input, and which types and values go together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from flowsmith.errors import FlowsmithError
from flowsmith.flows.flow import Value

Kind = Literal["link", "choice", "int", "float", "text", "bool", "widget"]

KINDS: dict[str, Kind] = {
    "INT": "int",
    "FLOAT": "float",
    "STRING": "text",
    "BOOLEAN": "bool",
    "COMBO": "choice",
}


class SchemaError(FlowsmithError):
    """An object_info dump cannot be read, or is asked for what it does not hold."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a node class.

    Attributes:
        name: Its name, as a graph has it; inputs that another one brings with it have dotted names.
        kind: What may stand there; "link" only takes outputs of other nodes, the others take a value (or, as
            in ComfyUI, a link of the same type). A "widget" has an editor of its own (a colour, a curve) and
            takes any JSON value.
        type: ComfyUI's type name, "COMBO" for either shape of choice; of a matched input the types that it
            allows.
        choices: What a "choice" allows, as far as a flow can hold it.
        minimum: Least number, if there is one.
        maximum: Greatest number, if there is one.
        step: Distance of allowed numbers from the minimum on; for floats what the frontend rounds to, if it
            says.
        default: What the frontend fills in, if it says (without a word it takes the first choice).
        required: Whether a graph must give it.
        seed: Whether it is the seed of a sampling node; flows hold none.
        multiple: Whether a "choice" takes a list of its choices (wrapped, as any list that is no link).
        match: Name that inputs and outputs of a node share whose types must agree (a switch's, for instance).
        branches: Per choice of a dynamic combo, the inputs that it brings with it.
        grows: Set for a group of inputs of which a graph gives as many as it needs; the group itself then
            stands in no graph.
    """

    name: str
    kind: Kind
    type: str
    choices: tuple[Value, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    default: Value | None = None
    required: bool = True
    seed: bool = False
    multiple: bool = False
    match: str | None = None
    branches: tuple[tuple[str, tuple["InputSpec", ...]], ...] = ()
    grows: "Growth | None" = None

    @classmethod
    def from_object_info(cls, name: str, entry: Any, required: bool) -> "InputSpec":
        """Read one input, ``[type]`` or ``[type, options]``; null options are none.

        Raises:
            SchemaError: It is no input, or its choices or bounds are none.
        """
        from flowsmith.flows.input_entries import read_input

        return read_input(name, entry, required)

    def to_object_info(self) -> list[Any]:
        """Write the input as object_info has it (choices in V3's shape)."""
        from flowsmith.flows.input_entries import write_input

        return write_input(self)

    @property
    def dynamic(self) -> bool:
        """Whether which inputs there are depends on what a graph gives here."""
        return bool(self.branches) or self.grows is not None

    def branch(self, value: object) -> tuple["InputSpec", ...]:
        """Return the inputs that a choice brings with it; none if it is no choice."""
        value = unwrap(value)
        return next((inner for key, inner in self.branches if key == value), ())


@dataclass(frozen=True, slots=True)
class Growth:
    """A group of equal inputs (autogrow): ``images.image0``, ``images.image1``, ...

    Attributes:
        element: What each of them takes, under the name of the group.
        minimum: How many a graph must give, the first ones.
        maximum: How many there may be.
        stem: Name within the group, before the number; empty if the names are listed.
        listed: Names within the group, if they are listed.
    """

    element: InputSpec
    minimum: int
    maximum: int
    stem: str = ""
    listed: tuple[str, ...] = ()

    def names(self) -> Iterator[str]:
        """Yield the names that a graph may use, in order."""
        inner = self.listed or (f"{self.stem}{place}" for place in range(self.maximum))
        return (f"{self.element.name}.{name}" for name in inner)

    def among(self, given: Mapping[str, Any], required: bool) -> list[InputSpec]:
        """Return the inputs that a graph gives or must give."""
        return [
            replace(self.element, name=name, required=needed)
            for place, name in enumerate(self.names())
            if (needed := required and place < self.minimum) or name in given
        ]


def expand(specs: Sequence[InputSpec], given: Mapping[str, Any]) -> tuple[InputSpec, ...]:
    """Return the inputs that there are, in order, for what a graph gives.

    Args:
        specs: Inputs of a node class.
        given: A node's inputs, in a graph or in a flow.
    """
    found: list[InputSpec] = []
    for spec in specs:
        if spec.grows is not None:
            found += spec.grows.among(given, spec.required)
            continue
        found.append(spec)
        if spec.branches:
            found += expand(spec.branch(given.get(spec.name)), given)
    return tuple(found)


def fits(received: str, wanted: str) -> bool:
    """Return whether an output of one type may go into an input of another, unions and ``*`` included."""
    return common(received, wanted) is not None


def common(one: str, other: str) -> str | None:
    """Return the types, comma-separated, that two unions share; None if there are none."""
    for any_type in ("*", "COMFY_MATCHTYPE_V3"):
        if any_type in (one, other):
            return other if one == any_type else one
    others = {part.strip() for part in other.split(",")}
    shared = [part for part in map(str.strip, one.split(",")) if part in others]
    return ",".join(shared) if shared else None


def normalise(value: Value, kind: Kind) -> Value:
    """Give a valid value its one form: whole numbers on a float input are floats, and -0.0 is 0.0."""
    return float(value) + 0.0 if kind == "float" else value


def unwrap(value: object) -> object:
    """Take a literal out of the wrapper that the server allows around it."""
    return value["__value__"] if isinstance(value, Mapping) and set(value) == {"__value__"} else value
