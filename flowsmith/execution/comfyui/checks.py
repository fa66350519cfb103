"""What servers are and have, and where they differ in what the flows use.

ComfyUI tells no versions of nodes and no hashes of files. So compared are its own version, the nodes' inputs and
outputs, and the names of what may be chosen; a file that is replaced under its name goes unnoticed.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowsmith.execution.comfyui.client import Server
from flowsmith.execution.comfyui.connection import parse
from flowsmith.execution.comfyui.errors import ServerSetupError
from flowsmith.flows import Schema
from flowsmith.flows.schema import NodeType, SchemaError

_MODEL_FILES = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".pkl")


@dataclass(frozen=True)
class ServerFacts:
    """What a server tells of itself.

    Attributes:
        name: Its address.
        version: ComfyUI's.
        schema: Nodes and files that it has.
    """

    name: str
    version: str
    schema: Schema

    @property
    def model_files(self) -> list[str]:
        """All model files as "Class.input/file", sorted."""
        return sorted(
            f"{node.name}.{spec.name}/{choice}"
            for node in self.schema.nodes.values()
            for spec in node.inputs
            for choice in spec.choices
            if is_model_file(choice)
        )


class FactsReader:
    """Reads servers' facts; equal dumps, as servers of one installation give, become one schema in memory."""

    def __init__(self) -> None:
        self._schemas: dict[bytes, Schema] = {}

    async def read(self, server: Server) -> ServerFacts:
        """Ask a server.

        Raises:
            ServerFault: It does not answer.
            ServerSetupError: Its answer is no object_info.
        """
        version, dump = await server.read_facts()
        digest = hashlib.sha256(dump).digest()
        if digest not in self._schemas:
            try:
                self._schemas[digest] = Schema.from_object_info(parse(dump))
            except SchemaError as error:
                raise ServerSetupError(
                    f"{server.name}: its /object_info cannot be read ({error}); is it a ComfyUI server?"
                ) from error
        return ServerFacts(server.name, version, self._schemas[digest])


@dataclass(frozen=True)
class Used:
    """What flows need of a server.

    Attributes:
        classes: Node classes.
        choices: (class, input, value) of every choice.
    """

    classes: frozenset[str]
    choices: frozenset[tuple[str, str, str]]


def used_by(graphs: Iterable[Mapping[str, Any]], schema: Schema) -> Used:
    """Collect what graphs in API format need."""
    classes, choices = set(), set()
    for graph in graphs:
        for node in graph.values():
            name = node["class_type"]
            classes.add(name)
            specs = schema.nodes[name].inputs if name in schema.nodes else ()
            chosen = {spec.name for spec in specs if spec.kind == "choice"}
            for key, value in node["inputs"].items():
                if key in chosen and isinstance(value, str):
                    choices.add((name, key, value))
    return Used(frozenset(classes), frozenset(choices))


def differences(facts: Sequence[ServerFacts], used: Used) -> list[str]:
    """Tell where servers differ in what is used; what none of them has is the flow's mistake, not theirs."""
    told = []
    first = facts[0]
    for other in facts[1:]:
        if other.version != first.version:
            told.append(
                f"{other.name} is ComfyUI {other.version}, {first.name} is {first.version}: update one"
            )
    for name in sorted(used.classes):
        have = [f for f in facts if name in f.schema.nodes]
        told += [f"{f.name} lacks the node {name}: install it" for f in facts if have and f not in have]
        told += [
            f"{f.name} and {have[0].name} have different versions of the node {name}: update one"
            for f in have[1:]
            if _shape(f.schema.nodes[name]) != _shape(have[0].schema.nodes[name])
        ]
    for name, key, value in sorted(used.choices):
        able = [f for f in facts if value in _choices(f, name, key)]
        told += [
            f"{f.name} lacks {value!r} of {name}.{key}: add it"
            for f in facts
            if able and f not in able and name in f.schema.nodes
        ]
    return told


def is_model_file(choice: object) -> bool:
    """Return whether a choice names a file of weights."""
    return isinstance(choice, str) and choice.lower().endswith(_MODEL_FILES)


def _shape(node: NodeType) -> NodeType:
    """Return a node without its choices, which are compared where they are used."""
    return replace(node, inputs=tuple(replace(spec, choices=(), default=None) for spec in node.inputs))


def _choices(facts: ServerFacts, name: str, key: str) -> frozenset[Any]:
    node = facts.schema.nodes.get(name)
    return frozenset(
        choice for spec in (node.inputs if node else ()) if spec.name == key for choice in spec.choices
    )
