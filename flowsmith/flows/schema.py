"""What nodes exist and what they take: ComfyUI's object_info, read into typed records."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from flowsmith.flows.flow import Value
from flowsmith.flows.inputs import InputSpec, SchemaError, fits, normalise
from flowsmith.flows.issues import FlowError, FlowIssue, nearest, shown, suggest
from flowsmith.flows.live_schema import TIMEOUT, ServerUnavailable, fetch_object_info
from flowsmith.flows.node_type import NodeType
from flowsmith.flows.object_info import MOST_BYTES, no_collection, parse_dump, read_nodes, write_node

__all__ = [
    "InputSpec",
    "NodeType",
    "Schema",
    "SchemaError",
    "ServerUnavailable",
    "fits",
    "normalise",
    "unknown_class",
]


@dataclass(frozen=True)
class Schema:
    """The node classes that exist.

    Attributes:
        nodes: By name.
        unreadable: Classes of an installation that are described in no way that can be read, and why; graphs
            that use them are not valid.
    """

    nodes: Mapping[str, NodeType]
    unreadable: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def from_object_info(cls, dump: Mapping[str, Any], strict: bool = True) -> "Schema":
        """Read a dump of ComfyUI's ``/object_info``.

        Args:
            dump: Node classes by name.
            strict: Refuse a dump of which one class cannot be read; otherwise it is listed as unreadable.

        Raises:
            SchemaError: It is no such dump.
        """
        return cls(*read_nodes(dump, strict))

    @classmethod
    def from_file(cls, path: Path | str) -> "Schema":
        """Read a dump out of a JSON file; classes that cannot be read are listed as unreadable.

        Raises:
            SchemaError: It cannot be read, is larger than 512 MiB, or is no dump.
        """
        try:
            if not Path(path).is_file():  # a device or a pipe may never end
                raise OSError("no file")
            size = Path(path).stat().st_size
            content = Path(path).read_bytes() if size <= MOST_BYTES else b""
        except (OSError, ValueError) as error:
            raise SchemaError(
                f"schema={path}: cannot be read ({error}); name a file with the answer of /object_info"
            ) from error
        if size > MOST_BYTES:
            raise SchemaError(
                f"schema={path}: {size} bytes, at most {MOST_BYTES} are read; name another file"
            )
        return cls._from_bytes(content, f"schema={path}")

    @classmethod
    def from_server(cls, url: str, timeout: float = TIMEOUT) -> "Schema":
        """Ask a running ComfyUI what is installed; classes that cannot be read are listed as unreadable.

        Args:
            url: Its address, such as ``http://127.0.0.1:8188``.
            timeout: Seconds for the whole answer.

        Raises:
            ServerUnavailable: It does not answer in time, or with an error.
            SchemaError: The address is none, or what answers there is no ComfyUI.
        """
        return cls._from_bytes(fetch_object_info(url, timeout), f"schema={url}")

    @classmethod
    def load(cls, source: Path | str) -> "Schema":
        """Read a schema from a file, or from a server if ``source`` starts with http:// or https://."""
        if str(source).lower().startswith(("http://", "https://")):
            return cls.from_server(str(source))
        return cls.from_file(source)

    @classmethod
    def _from_bytes(cls, content: bytes, source: str) -> "Schema":
        with no_collection():
            return cls.from_object_info(parse_dump(content, source), strict=False)

    @classmethod
    def core(cls) -> "Schema":
        """Return the nodes that this project can execute; their lists of model files are empty."""
        return _core()

    def to_object_info(self) -> dict[str, Any]:
        """Write a dump that `from_object_info` reads back to an equal schema."""
        return {name: write_node(node) for name, node in self.nodes.items()}

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
                listed ones, since a dump of a bare server lists none. Of a choice that brings inputs with it,
                some of the listed ones.

        Raises:
            SchemaError: A class, a choice input or a choice that brings inputs does not exist.
        """
        kept = dict(self.nodes)
        if classes is not None:
            wanted = set(classes)
            for name in classes:
                if name not in kept:
                    raise SchemaError(
                        f"classes: {name!r} is not in the schema; {self.unreadable.get(name) or nearest(name, kept)}"
                    )
            kept = {name: node for name, node in kept.items() if name in wanted}
        for target, values in (choices or {}).items():
            class_name, name = _split(target, kept)
            node = kept.get(class_name)
            specs = {spec.name: spec for spec in node.inputs} if node else {}
            if node is None or name not in specs or specs[name].kind != "choice":
                names = [f"{n}.{s.name}" for n, t in kept.items() for s in t.inputs if s.kind == "choice"]
                raise SchemaError(f"choices of {target!r}: no such choice input; {nearest(target, names)}")
            specs[name] = _chosen(target, specs[name], tuple(values))
            kept[class_name] = replace(node, inputs=tuple(specs.values()))
        return Schema(kept, self.unreadable)


def unknown_class(name: object, schema: Schema, node_id: str | None) -> FlowIssue:
    """Return the issue of a node class that the schema does not have."""
    if isinstance(name, str) and name in schema.unreadable:
        allowed, close = "use another class", None
        why = f"is installed, but described in no way that can be read ({schema.unreadable[name]})"
    else:
        (allowed, close), why = suggest(name, schema.nodes), "is not installed"
    where = "" if node_id is None else f"node {node_id[:80]}: "
    message = f"{where}class_type={shown(name)} {why}; {allowed}"
    return FlowIssue("missing_node_type", node_id, "class_type", name, allowed, message, close)


def _split(target: str, nodes: Collection[str]) -> tuple[str, str]:
    """Take "Class.input" apart; names of classes and inputs may hold dots themselves."""
    places = [place for place, letter in enumerate(target) if letter == "." and target[:place] in nodes]
    place = places[-1] if places else len(target)
    return target[:place], target[place + 1 :]


def _chosen(target: str, spec: InputSpec, values: tuple[Value, ...]) -> InputSpec:
    if not spec.branches:
        return replace(spec, choices=values)
    for value in values:
        if value not in spec.choices:
            raise SchemaError(
                f"choices of {target!r}: {value!r} brings no known inputs; {nearest(value, spec.choices)}"
            )
    kept = tuple((key, inner) for key, inner in spec.branches if key in values)
    return replace(spec, choices=tuple(key for key, _ in kept), branches=kept)


@cache
def _core() -> Schema:
    text = files("flowsmith.flows").joinpath("schemas/core.json").read_text(encoding="utf-8")
    return Schema.from_object_info(json.loads(text))
