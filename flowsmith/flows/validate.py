"""Validation of graphs against a schema: what the server checks, and what it lets through to fail later.

ComfyUI accepts literals on link inputs, negative slots, true or "32" for INT, off-step values, NaN, unknown
inputs, broken unreachable nodes and path-escaping file prefixes. Here they are issues.
"""

import math
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from flowsmith.flows.flow import Flow
from flowsmith.flows.issues import FlowError, FlowIssue, IssueType, nearest, shown, whole
from flowsmith.flows.schema import InputSpec, NodeType, Schema, fits, unknown_class
from flowsmith.flows.templates import TemplateError, has_prompt

Graph = Mapping[str, Any]
_HUGE = sys.float_info.max


def validate(graph: Flow | Graph, schema: Schema, template: bool = False) -> list[FlowIssue]:
    """Return all that is wrong with a flow or with a graph in API format.

    Args:
        graph: A flow, or an object of nodes by id.
        schema: What exists.
        template: Whether the graph's texts are templates and its seeds may be absent; a flow's always are.

    Returns:
        No issue if ComfyUI would run it as it is meant.
    """
    if isinstance(graph, Flow):
        graph, template = graph.to_template(), True
    if not isinstance(graph, Mapping):
        return [
            whole("invalid_graph", type(graph).__name__, "an object of nodes by id", "the graph is no object")
        ]
    issues: list[FlowIssue] = []
    types: dict[str, NodeType] = {}
    for name, node in graph.items():
        found = _node_issue(name, node, schema)
        if found is None:
            types[name] = schema.nodes[node["class_type"]]
        else:
            issues.append(found)
    if not any(node_type.is_output for node_type in types.values()) and len(types) == len(graph):
        message = "no node saves or shows anything; end the flow in an output node"
        issues.append(whole("prompt_no_outputs", None, "an output node", message))
    for name, node_type in types.items():
        issues += _NodeCheck(name, graph, types, template).issues(node_type)
    return issues + _cycles(graph, types)


def check(graph: Flow | Graph, schema: Schema, template: bool = False, source: str = "flow") -> None:
    """Raise a `FlowError` that lists all issues, if there are any; see `validate`."""
    issues = validate(graph, schema, template)
    if issues:
        raise FlowError(issues, source)


def unwrap(value: object) -> object:
    """Take a literal out of the wrapper that the server allows around it."""
    return value["__value__"] if isinstance(value, Mapping) and set(value) == {"__value__"} else value


def _node_issue(name: object, node: object, schema: Schema) -> FlowIssue | None:
    if not isinstance(name, str):
        return FlowIssue(
            "invalid_node", shown(name), None, name, "a string", f"node id {shown(name)} is no string"
        )
    if not isinstance(node, Mapping):
        allowed = "give an object with class_type and inputs"
        return FlowIssue("invalid_node", name, None, node, allowed, f"node {name!r} is no object; {allowed}")
    if not isinstance(node.get("class_type"), str) or node["class_type"] not in schema.nodes:
        return unknown_class(node.get("class_type"), schema, name)
    inputs = node.get("inputs", {})
    if not isinstance(inputs, Mapping):
        allowed = "give an object of inputs by name"
        message = f"node {name!r}: inputs is no object; {allowed}"
        return FlowIssue("invalid_node", name, "inputs", inputs, allowed, message)
    return None


def _cycles(graph: Graph, types: Mapping[str, NodeType]) -> list[FlowIssue]:
    sources = {
        name: [v[0] for v in graph[name].get("inputs", {}).values() if _is_link(v) and v[0] in types]
        for name in types
    }
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        path = " -> ".join(circle)
        message = f"links run in a circle: {path}; take one of them out"
        return [
            FlowIssue("dependency_cycle", n, None, path, "no circle", message) for n in dict.fromkeys(circle)
        ]
    return []


def _is_link(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)


class _NodeCheck:
    """The checks of one node's inputs."""

    def __init__(self, name: str, graph: Graph, types: Mapping[str, NodeType], template: bool) -> None:
        self.name, self.graph, self.types, self.template = name, graph, types, template

    def issue(
        self, kind: IssueType, spec: InputSpec | str, given: object, allowed: str, why: str
    ) -> FlowIssue:
        slot = spec if isinstance(spec, str) else spec.name
        where = f"node {self.name} ({self.types[self.name].name}): {slot}={shown(given)}"
        return FlowIssue(kind, self.name, slot, given, allowed, f"{where} {why}; {allowed}")

    def issues(self, node_type: NodeType) -> list[FlowIssue]:
        inputs = self.graph[self.name].get("inputs", {})
        specs = {spec.name: spec for spec in node_type.inputs}
        found: list[FlowIssue] = []
        for slot in inputs:
            if slot not in specs:
                found.append(
                    self.issue(
                        "unknown_input", str(slot), inputs[slot], nearest(slot, specs), "does not exist"
                    )
                )
        for slot, spec in specs.items():
            if slot in inputs:
                one = self._given(spec, inputs[slot])
            elif spec.required and not (spec.seed and self.template):
                one = self.issue("required_input_missing", spec, None, f"give {_wanted(spec)}", "is missing")
            else:
                one = None
            if one is not None:
                found.append(one)
        return found

    def _given(self, spec: InputSpec, value: object) -> FlowIssue | None:
        if isinstance(value, list | tuple):
            return self._link(spec, value)
        if spec.kind == "link":
            allowed = f'link an output of type {spec.type}, as ["node id", slot]'
            return self.issue(
                "literal_on_link_input", spec, value, allowed, "is a value where a link belongs"
            )
        return self._value(spec, unwrap(value))

    def _link(self, spec: InputSpec, value: list[Any] | tuple[Any, ...]) -> FlowIssue | None:
        form = 'give ["node id", slot number]'
        if not _is_link(value) or isinstance(value[1], bool) or not isinstance(value[1], int):
            return self.issue("bad_linked_input", spec, value, form, "is no link")
        if value[0] not in self.graph:
            allowed = nearest(value[0], self.graph)
            return self.issue("bad_linked_input", spec, value, allowed, "links to a node that is not there")
        if value[0] not in self.types:
            return None  # that node has an issue of its own
        outputs = self.types[value[0]].outputs
        if not 0 <= value[1] < len(outputs):
            slots = ", ".join(f"{place} ({name})" for place, name in enumerate(outputs)) or "none"
            return self.issue(
                "bad_linked_input", spec, value, f"slots: {slots}", "links to a slot that is not there"
            )
        if not fits(outputs[value[1]], spec.type):
            why = f"is a {outputs[value[1]]}"
            return self.issue("return_type_mismatch", spec, value, f"link a {spec.type}", why)
        return None

    def _value(self, spec: InputSpec, value: object) -> FlowIssue | None:
        if spec.kind == "choice":
            # 1, 1.0 and True are equal in Python, and different choices in JSON.
            if any(type(choice) is type(value) and choice == value for choice in spec.choices):
                return None
            return self.issue(
                "value_not_in_list", spec, value, nearest(value, spec.choices), "is not in the list"
            )
        if spec.kind == "bool":
            right = isinstance(value, bool)
        elif spec.kind == "text":
            right = isinstance(value, str)
        else:
            right = isinstance(value, int if spec.kind == "int" else (int, float)) and not isinstance(
                value, bool
            )
        if not right:
            return self.issue(
                "invalid_input_type", spec, value, f"give {_wanted(spec)}", "has the wrong type"
            )
        if isinstance(value, str):
            return self._text(spec, value)
        return self._number(spec, value) if isinstance(value, int | float) and spec.kind != "bool" else None

    def _number(self, spec: InputSpec, value: int | float) -> FlowIssue | None:
        # math.isfinite would make a float of an integer of any size.
        if isinstance(value, float) and not math.isfinite(value):
            return self.issue(
                "value_not_finite", spec, value, f"give {_wanted(spec)}", "is no number to compute with"
            )
        if value < (-_HUGE if spec.minimum is None else spec.minimum):
            return self.issue("value_smaller_than_min", spec, value, f"give {_wanted(spec)}", "is too small")
        if value > (_HUGE if spec.maximum is None else spec.maximum):
            return self.issue("value_bigger_than_max", spec, value, f"give {_wanted(spec)}", "is too big")
        if spec.step and not spec.seed:
            low = spec.minimum or 0
            steps = (value - low) / spec.step
            # Beyond what doubles tell apart, every number is on a step.
            near = low + round(steps) * spec.step if math.isfinite(steps) else value
            if abs(near - value) > 1e-6 * max(1.0, abs(value)):
                allowed = f"give {near:.10g} (steps of {spec.step:g})"
                return self.issue("value_off_step", spec, value, allowed, "is between the allowed steps")
        return None

    def _text(self, spec: InputSpec, value: str) -> FlowIssue | None:
        if self.template:
            try:
                placed = has_prompt(value)
            except TemplateError as error:
                return self.issue(
                    "bad_template", spec, value, "use {prompt}, {{ and }}", f"is no template ({error})"
                )
        if spec.name == "filename_prefix":
            parts = value.replace("\\", "/").split("/")
            drive = parts[0][1:2] == ":"
            if ".." in parts or parts[0] == "" or drive or "\0" in value or (self.template and placed):
                allowed = "give a plain name or subfolder/name"
                return self.issue("unsafe_path", spec, value, allowed, "may leave the output folder")
        return None


def _wanted(spec: InputSpec) -> str:
    """Say in words what an input takes."""
    if spec.kind == "link":
        return f"a link to a {spec.type}"
    if spec.kind == "choice":
        return f"one of {', '.join(map(str, spec.choices[:12])) or 'the installed files'}"
    if spec.kind in ("text", "bool"):
        return "a text" if spec.kind == "text" else "true or false"
    limits = [f"from {spec.minimum:g}"] if spec.minimum is not None else []
    limits += [f"up to {spec.maximum:g}"] if spec.maximum is not None else []
    return " ".join(["a whole number" if spec.kind == "int" else "a number", *limits])
