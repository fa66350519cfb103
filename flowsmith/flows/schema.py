"""What nodes exist and what they take: ComfyUI's object_info, read into typed records.

Both combo shapes are read, ``[["a", "b"], {...}]`` and V3's ``["COMBO", {"options": [...]}]``. Unions are
comma strings ("FLOAT,INT"), ``*`` is any type.
"""

import json
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from flowsmith.errors import FlowsmithError
from flowsmith.flows.flow import Value
from flowsmith.flows.issues import FlowError, FlowIssue, nearest, shown

Kind = Literal["link", "choice", "int", "float", "text", "bool"]

_KINDS: dict[str, Kind] = {
    "INT": "int",
    "FLOAT": "float",
    "STRING": "text",
    "BOOLEAN": "bool",
    "COMBO": "choice",
}
_SEEDS = ("seed", "noise_seed")


class SchemaError(FlowsmithError):
    """An object_info dump cannot be read, or is asked for what it does not hold."""


@dataclass(frozen=True)
class InputSpec:
    """One input of a node class.

    Attributes:
        name: Its name.
        kind: What may stand there; "link" only takes outputs of other nodes, the others take a value (or, as
            in ComfyUI, a link of the same type).
        type: ComfyUI's type name, "COMBO" for either shape of choice.
        choices: What a "choice" allows.
        minimum: Least number, if there is one.
        maximum: Greatest number, if there is one.
        step: Distance of allowed numbers from the minimum on; for floats what the frontend rounds to, if it
            says.
        default: What the frontend fills in, if it says.
        required: Whether a graph must give it.
        seed: Whether it is the seed of a sampling node; flows hold none.
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

    @classmethod
    def from_object_info(cls, name: str, entry: Any, required: bool) -> "InputSpec":
        """Read one input, ``[type]`` or ``[type, options]``; null options are none.

        Raises:
            SchemaError: It is no input, or its choices or bounds are none.
        """
        if not isinstance(entry, list | tuple) or not entry or not isinstance(entry[0], str | list | tuple):
            raise SchemaError(
                f"input {name}={shown(entry)} is no [type] or [type, options]; give an object_info dump"
            )
        options: Mapping[str, Any] = entry[1] if len(entry) > 1 and isinstance(entry[1], Mapping) else {}
        first: Any = entry[0]
        legacy = not isinstance(first, str)
        kind: Kind = "choice" if legacy else _kind(first)
        if options.get("forceInput") and not legacy:
            kind = "link"
        choices = first if legacy else options.get("options") or ()
        if kind == "choice" and not isinstance(choices, list | tuple):
            raise SchemaError(f"input {name}: options={shown(choices)}; give a list of choices")
        number = kind in ("int", "float")
        bounds = {
            key: _bound(name, key, options) if number else None for key in ("min", "max", "step", "round")
        }
        step = bounds["round"] or bounds["step"] if kind == "float" else bounds["step"]
        return cls(
            name=name,
            kind=kind,
            type="COMBO" if legacy else first,
            choices=tuple(_choice(choice) for choice in choices) if kind == "choice" else (),
            minimum=bounds["min"],
            maximum=bounds["max"],
            step=step or None,
            default=options.get("default") if kind != "link" else None,
            required=required,
            seed=kind == "int" and (bool(options.get("control_after_generate")) or name in _SEEDS),
        )

    def to_object_info(self) -> list[Any]:
        """Write the input as object_info has it (choices in V3's shape)."""
        options: dict[str, Any] = {"options": list(self.choices)} if self.kind == "choice" else {}
        for key, value in (
            ("min", self.minimum), ("max", self.maximum), ("step", self.step), ("default", self.default),
            ("control_after_generate", self.seed or None),
            ("forceInput", True if self.kind == "link" and self.type in _KINDS else None),
        ):  # fmt: skip
            if value is not None:
                options[key] = value
        return [self.type, options] if options else [self.type]


@dataclass(frozen=True)
class NodeType:
    """One node class: inputs (required ones first), types of its outputs, whether it ends a graph."""

    name: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    is_output: bool = False

    @property
    def flow_inputs(self) -> tuple[InputSpec, ...]:
        """The inputs that a flow holds: all but the seed."""
        return tuple(spec for spec in self.inputs if not spec.seed)

    @property
    def seed_input(self) -> str | None:
        """Name of the seed, for a sampling node."""
        return next((spec.name for spec in self.inputs if spec.seed), None)


@dataclass(frozen=True)
class Schema:
    """The node classes that exist, by name."""

    nodes: Mapping[str, NodeType]

    @classmethod
    def from_object_info(cls, dump: Mapping[str, Any]) -> "Schema":
        """Read a dump of ComfyUI's ``/object_info``.

        Raises:
            SchemaError: It is no such dump.
        """
        if not isinstance(dump, Mapping):
            raise SchemaError(
                "an object_info dump is an object of node classes; give the answer of /object_info"
            )
        return cls({name: _node_type(name, entry) for name, entry in dump.items()})

    @classmethod
    def core(cls) -> "Schema":
        """Return the nodes that this project can execute; their lists of model files are empty."""
        return _core()

    def to_object_info(self) -> dict[str, Any]:
        """Write a dump that `from_object_info` reads back to an equal schema."""
        dump: dict[str, Any] = {}
        for name, node in self.nodes.items():
            inputs: dict[str, dict[str, Any]] = {}
            for spec in node.inputs:
                section = inputs.setdefault("required" if spec.required else "optional", {})
                section[spec.name] = spec.to_object_info()
            order = {section: list(specs) for section, specs in inputs.items()}
            outputs = {"output": list(node.outputs), "output_node": node.is_output}
            dump[name] = {"input": inputs, "input_order": order, **outputs}
        return dump

    def node(self, name: str) -> NodeType:
        """Return a node class.

        Raises:
            FlowError: There is none of that name.
        """
        if name not in self.nodes:
            raise FlowError([unknown_class(name, self, None)])
        return self.nodes[name]

    def restrict(
        self, classes: Collection[str] | None = None, choices: Mapping[str, Iterable[Value]] | None = None
    ) -> "Schema":
        """Return the schema of what is actually there.

        Args:
            classes: Node classes to keep; all if None.
            choices: Choices per "Class.input", for instance the model files in a folder; they replace the
                listed ones, since a dump of a bare server lists none.

        Raises:
            SchemaError: A class or a choice input does not exist.
        """
        kept = dict(self.nodes)
        if classes is not None:
            unknown = [name for name in classes if name not in kept]
            if unknown:
                raise SchemaError(f"classes={unknown}: not in the schema; {nearest(unknown[0], kept)}")
            kept = {name: node for name, node in kept.items() if name in set(classes)}
        for target, values in (choices or {}).items():
            class_name, _, input_name = target.partition(".")
            node = kept.get(class_name)
            specs = {spec.name: spec for spec in node.inputs} if node else {}
            if node is None or input_name not in specs or specs[input_name].kind != "choice":
                names = [f"{n}.{s.name}" for n, t in kept.items() for s in t.inputs if s.kind == "choice"]
                raise SchemaError(f"choices of {target!r}: no such choice input; {nearest(target, names)}")
            specs[input_name] = replace(specs[input_name], choices=tuple(values))
            kept[class_name] = replace(node, inputs=tuple(specs.values()))
        return Schema(kept)


def unknown_class(name: object, schema: Schema, node_id: str | None) -> FlowIssue:
    """Return the issue of a node class that the schema does not have."""
    allowed = nearest(name, schema.nodes)
    message = f"class_type={shown(name)} is not installed; {allowed}"
    return FlowIssue("missing_node_type", node_id, "class_type", name, allowed, message)


def fits(received: str, wanted: str) -> bool:
    """Return whether an output of one type may go into an input of another, unions and ``*`` included."""
    if "*" in (received, wanted) or "COMFY_MATCHTYPE_V3" in (received, wanted):
        return True
    return bool(set(received.split(",")) & set(wanted.split(",")))


def normalise(value: Value, kind: Kind) -> Value:
    """Give a valid value its one form: whole numbers on a float input are floats, and -0.0 is 0.0."""
    return float(value) + 0.0 if kind == "float" else value


def _kind(type_name: str) -> Kind:
    if type_name == "COMFY_DYNAMICCOMBO_V3":
        return "choice"
    kinds = {_KINDS.get(part, "link") for part in type_name.split(",")}
    if kinds <= {"int", "float"}:
        return "float" if "float" in kinds else "int"
    return kinds.pop() if len(kinds) == 1 else "link"


def _bound(name: str, key: str, options: Mapping[str, Any]) -> float | None:
    """Return a number out of an input's options, None where there is none (the frontend says so by false)."""
    value = options.get(key)
    if value is None or value is False:
        return None
    huge = isinstance(value, int) and abs(value) > sys.float_info.max
    if isinstance(value, bool) or not isinstance(value, int | float) or huge:
        raise SchemaError(f"input {name}: {key}={shown(value)}; give a number, or leave it out")
    return value


def _choice(choice: Any) -> Any:
    """Return a choice; a dynamic combo's is an object whose key is what a graph holds."""
    return choice.get("key", json.dumps(choice)) if isinstance(choice, Mapping) else choice


def _part(node: str, whole: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    """Return an object or list within a node's entry; one that is null or missing is empty."""
    part = kind() if whole.get(key) is None else whole[key]
    if not isinstance(part, kind):
        raise SchemaError(
            f"{node}: {key}={shown(part)} is not what object_info has there; give the answer of /object_info"
        )
    return part


def _node_type(name: str, entry: Any) -> NodeType:
    if not isinstance(entry, Mapping):
        raise SchemaError(f"{name}: not an object_info entry; give the answer of /object_info")
    inputs = _part(name, entry, "input", dict)
    orders = _part(name, entry, "input_order", dict)
    specs: list[InputSpec] = []
    for section in ("required", "optional"):
        found = _part(name, inputs, section, dict)
        order = _part(name, orders, section, list)
        names = [n for n in order if isinstance(n, str) and n in found]
        names += [n for n in found if n not in names]
        specs += [InputSpec.from_object_info(n, found[n], section == "required") for n in names]
    outputs = tuple(o if isinstance(o, str) else "COMBO" for o in _part(name, entry, "output", list))
    return NodeType(name, tuple(specs), outputs, bool(entry.get("output_node")))


@cache
def _core() -> Schema:
    text = files("flowsmith.flows").joinpath("schemas/core.json").read_text(encoding="utf-8")
    return Schema.from_object_info(json.loads(text))
