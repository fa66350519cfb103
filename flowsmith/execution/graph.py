"""From an API-format graph to evaluations of nodes, each named by everything that its result depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from hashlib import blake2b
from typing import Any

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.nodes import NodeType, find_node


@dataclass(frozen=True)
class Evaluation:
    """One node of one graph with concrete inputs.

    Two evaluations with one key give the same result, whatever graphs they stand in.

    Attributes:
        key: Hash of the class, the values and the keys of what is linked.
        node: How it is run.
        values: Inputs that are not linked.
        links: Inputs that are: (key of the other evaluation, output slot).
    """

    key: str
    node: NodeType
    values: Mapping[str, Any]
    links: Mapping[str, tuple[str, int]]


@dataclass(frozen=True)
class Plan:
    """What a graph needs evaluated.

    Attributes:
        steps: In an order in which every link points back; only what an output needs.
        outputs: Keys of the output nodes, in the graph's order: those that keep an image, or else that show one.
    """

    steps: tuple[Evaluation, ...]
    outputs: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Keys of the evaluations that read files, sorted."""
        return tuple(sorted(step.key for step in self.steps if step.node.loads))


def plan_graph(graph: Mapping[str, Any]) -> Plan:
    """Plan an API-format graph ``{id: {"class_type", "inputs"}}``.

    Raises:
        ExecutionError: A class cannot be executed, a link points nowhere, links run in a circle, or no node
            is an output.
    """
    ends = {name: find_node(node["class_type"]).output for name, node in graph.items()}
    # What is only looked at is evaluated if there is nothing else.
    outputs = [name for name, end in ends.items() if end == "kept"] or [
        name for name, end in ends.items() if end
    ]
    if not outputs:
        raise ExecutionError("the graph has no output; end it with SaveImage")
    needed: dict[str, list[str]] = {}  # no sets: the order of steps is the same in every process
    waiting = list(reversed(outputs))  # taken from the end
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        if name not in graph:
            raise ExecutionError(f"a link points to node {name!r}, which the graph lacks")
        links = (_link(value) for value in graph[name]["inputs"].values())
        needed[name] = list(dict.fromkeys(link[0] for link in links if link))
        waiting.extend(reversed(needed[name]))
    try:
        order = list(TopologicalSorter(needed).static_order())
    except CycleError as error:
        raise ExecutionError(f"nodes {', '.join(error.args[1])} are linked in a circle") from error
    steps: dict[str, Evaluation] = {}
    for name in order:
        steps[name] = _evaluation(graph[name], steps)
    unique = {step.key: step for step in steps.values()}
    return Plan(tuple(unique.values()), tuple(steps[name].key for name in outputs))


def _evaluation(node: Mapping[str, Any], steps: Mapping[str, Evaluation]) -> Evaluation:
    values: dict[str, Any] = {}
    links: dict[str, tuple[str, int]] = {}
    for name, value in node["inputs"].items():
        link = _link(value)
        if link:
            links[name] = (steps[link[0]].key, link[1])
        else:
            values[name] = value
    said = repr((node["class_type"], sorted(values.items()), sorted(links.items())))
    key = blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return Evaluation(key, find_node(node["class_type"]), values, links)


def _link(value: object) -> tuple[str, int] | None:
    if isinstance(value, list) and len(value) == 2:
        return str(value[0]), int(value[1])
    return None
