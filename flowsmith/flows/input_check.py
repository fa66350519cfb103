"""The checks of one node's inputs."""

import math
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from flowsmith.flows.flow import Value
from flowsmith.flows.inputs import InputSpec, common, fits, unwrap
from flowsmith.flows.issues import FlowIssue, IssueType, is_text, shown, suggest
from flowsmith.flows.match_types import Outputs, is_link
from flowsmith.flows.node_type import NodeType
from flowsmith.flows.templates import TemplateError, has_prompt

_HUGE = sys.float_info.max
_PATHS = ("filename_prefix", "folder_name")  # wherever they are; "prefix" of an output node is one, too
_DEEPEST = 32  # objects in objects in the value of a widget


class InputCheck:
    """What is wrong with the inputs that a graph gives one node.

    Args:
        name: The node's id.
        node_type: Its class.
        inputs: What the graph gives it.
        ids: All ids of the graph.
        outputs: The types of the outputs of the nodes whose class is known.
        template: Whether texts are templates, and seeds may be absent.
    """

    def __init__(
        self,
        name: str,
        node_type: NodeType,
        inputs: Mapping[str, Any],
        ids: Collection[str],
        outputs: Outputs,
        template: bool,
    ) -> None:
        self.name, self.type, self.inputs, self.ids = name, node_type, inputs, ids
        self.outputs, self.template = outputs, template

    def issues(self) -> Iterator[FlowIssue]:
        """Yield all issues: inputs that do not exist, then the others in the schema's order."""
        specs = {spec.name: spec for spec in self.type.inputs_for(self.inputs)}
        yield from self._unknown(specs)
        agreed: dict[str, str] = {}
        for slot, spec in specs.items():
            if slot in self.inputs:
                found = self._given(spec, self.inputs[slot]) or self._matched(spec, agreed)
            elif spec.required and not (spec.seed and self.template):
                found = self._issue(
                    "required_input_missing", slot, None, f"give {_wanted(spec)}", "is missing"
                )
            else:
                found = None
            if found is not None:
                yield found

    def _issue(
        self,
        kind: IssueType,
        slot: str,
        given: object,
        allowed: str,
        why: str,
        nearest: Value | None = None,
    ) -> FlowIssue:
        where = f"node {self.name[:80]} ({self.type.name}): {slot[:80]}={shown(given)}"
        return FlowIssue(kind, self.name, slot, given, allowed, f"{where} {why}; {allowed}", nearest)

    def _unknown(self, specs: Mapping[str, InputSpec]) -> Iterator[FlowIssue]:
        if all(slot in specs for slot in self.inputs):
            return
        names = dict.fromkeys(specs)
        for spec in self.type.inputs:
            names |= dict.fromkeys(spec.grows.names() if spec.grows else ())
        # What a choice brings with it cannot be told while it is wrong or missing, which is told itself.
        untold = tuple(
            f"{slot}."
            for slot, spec in specs.items()
            if spec.branches and unwrap(self.inputs.get(slot)) not in spec.choices
        )
        for slot, value in self.inputs.items():
            if slot in specs or (isinstance(slot, str) and slot.startswith(untold)):
                continue
            if slot in self.type.hidden:
                allowed, close, why = "leave it out", None, "is filled in by the server"
            else:
                (allowed, close), why = suggest(slot, names), "does not exist"
            yield self._issue("unknown_input", str(slot), value, allowed, why, close)

    def _given(self, spec: InputSpec, value: object) -> FlowIssue | None:
        if isinstance(value, list | tuple):
            return self._link(spec, value)
        if spec.kind == "link":
            allowed = f'link an output of type {spec.type}, as ["node id", slot]'
            return self._issue(
                "literal_on_link_input", spec.name, value, allowed, "is a value where a link belongs"
            )
        return self._value(spec, unwrap(value))

    def _link(self, spec: InputSpec, value: list[Any] | tuple[Any, ...]) -> FlowIssue | None:
        if spec.branches:
            why = "is a link where a choice decides which inputs there are"
            return self._issue("bad_linked_input", spec.name, value, f"give {_wanted(spec)}", why)
        if not is_link(value):
            return self._issue(
                "bad_linked_input", spec.name, value, 'give ["node id", slot number]', "is no link"
            )
        if value[0] not in self.ids:
            allowed, close = suggest(value[0], self.ids)
            why = "links to a node that is not there"
            return self._issue("bad_linked_input", spec.name, value, allowed, why, close)
        if value[0] not in self.outputs:
            return None  # that node has an issue of its own
        outputs = self.outputs[value[0]]
        if not 0 <= value[1] < len(outputs):
            slots = ", ".join(f"{place} ({name})" for place, name in enumerate(outputs)) or "none"
            why = "links to a slot that is not there"
            return self._issue("bad_linked_input", spec.name, value, f"slots: {slots}", why)
        received = outputs[value[1]]
        if not fits(received, spec.type):
            allowed = f"link a {spec.type}"
            return self._issue("return_type_mismatch", spec.name, value, allowed, f"is a {received}")
        return None

    def _matched(self, spec: InputSpec, agreed: dict[str, str]) -> FlowIssue | None:
        """Check that a link brings what the other inputs of its match have, and keep what they agree on."""
        link = self.inputs[spec.name]
        if spec.match is None or link[0] not in self.outputs:
            return None
        received = self.outputs[link[0]][link[1]]
        before = agreed.setdefault(spec.match, spec.type)
        both = common(before, received)
        if both is None:
            allowed = f"link a {before}, as into the inputs that it must match"
            return self._issue("return_type_mismatch", spec.name, link, allowed, f"is a {received}")
        agreed[spec.match] = both
        return None

    def _value(self, spec: InputSpec, value: object) -> FlowIssue | None:
        if spec.kind == "choice":
            return self._choice(spec, value)
        if spec.kind == "widget":
            right = value is not None and _is_json(value)
        elif spec.kind == "bool":
            right = isinstance(value, bool)
        elif spec.kind == "text":
            right = isinstance(value, str)
        else:
            number = int if spec.kind == "int" else (int, float)
            right = isinstance(value, number) and not isinstance(value, bool)
        if not right:
            wanted = f"give {_wanted(spec)}"
            return self._issue("invalid_input_type", spec.name, value, wanted, "has the wrong type")
        if isinstance(value, str):
            return self._text(spec, value)
        return self._number(spec, value) if isinstance(value, int | float) and spec.kind != "bool" else None

    def _choice(self, spec: InputSpec, value: object) -> FlowIssue | None:
        for one in value if spec.multiple and isinstance(value, list) else [value]:
            # 1, 1.0 and True are equal in Python, and different choices in JSON.
            if not any(type(choice) is type(one) and choice == one for choice in spec.choices):
                allowed, close = suggest(one, spec.choices)
                return self._issue(
                    "value_not_in_list", spec.name, value, allowed, "is not in the list", close
                )
        return None

    def _number(self, spec: InputSpec, value: int | float) -> FlowIssue | None:
        wanted = f"give {_wanted(spec)}"
        # math.isfinite would make a float of an integer of any size.
        if isinstance(value, float) and not math.isfinite(value):
            return self._issue(
                "value_not_finite", spec.name, value, wanted, "is no number to compute with", spec.default
            )
        if value < (-_HUGE if spec.minimum is None else spec.minimum):
            return self._issue(
                "value_smaller_than_min", spec.name, value, wanted, "is too small", spec.minimum
            )
        if value > (_HUGE if spec.maximum is None else spec.maximum):
            return self._issue("value_bigger_than_max", spec.name, value, wanted, "is too big", spec.maximum)
        low = spec.minimum or 0
        # Beyond what doubles tell apart at the least value, every number is on a step.
        if spec.step and not spec.seed and value != spec.default and math.ulp(low) < spec.step / 2:
            steps = (value - low) / spec.step
            # Beyond what doubles tell apart, every number is on a step.
            near = low + round(steps) * spec.step if math.isfinite(steps) else value
            if abs(near - value) > 1e-6 * max(1.0, abs(value)):
                near = float(f"{near:.10g}") if isinstance(near, float) else near
                allowed = f"give {near:.10g} (steps of {spec.step:g})"
                why = "is between the allowed steps"
                return self._issue("value_off_step", spec.name, value, allowed, why, near)
        return None

    def _text(self, spec: InputSpec, value: str) -> FlowIssue | None:
        if not is_text(value):
            allowed = "give one without halves of surrogate pairs"
            return self._issue("invalid_text", spec.name, value, allowed, "is no Unicode text")
        placed = False
        if self.template and spec.kind == "text":
            try:
                placed = has_prompt(value)
            except TemplateError as error:
                return self._issue(
                    "bad_template", spec.name, value, "use {prompt}, {{ and }}", f"is no template ({error})"
                )
        if spec.name in _PATHS or (spec.name == "prefix" and self.type.is_output):
            parts = value.replace("\\", "/").split("/")
            drive = parts[0][1:2] == ":"
            if ".." in parts or parts[0] == "" or drive or "\0" in value or placed:
                allowed = "give a plain name or subfolder/name"
                return self._issue("unsafe_path", spec.name, value, allowed, "may leave the output folder")
        return None


def _wanted(spec: InputSpec) -> str:
    """Say in words what an input takes."""
    if spec.kind == "link":
        return f"a link to a {spec.type}"
    if spec.kind == "choice":
        return f"one of {', '.join(map(str, spec.choices[:12])) or 'the installed files'}"
    if spec.kind == "widget":
        return f"a {spec.type} as its editor writes it, in JSON"
    if spec.kind in ("text", "bool"):
        return "a text" if spec.kind == "text" else "true or false"
    limits = [f"from {spec.minimum:g}"] if spec.minimum is not None else []
    limits += [f"up to {spec.maximum:g}"] if spec.maximum is not None else []
    return " ".join(["a whole number" if spec.kind == "int" else "a number", *limits])


def _is_json(value: object) -> bool:
    """Return whether a value can be written as JSON: finite numbers, Unicode texts, not nested too deep."""
    stack = [(value, 0)]
    while stack:
        one, depth = stack.pop()
        if isinstance(one, Mapping) and depth < _DEEPEST:
            stack += [(part, depth + 1) for pair in one.items() for part in pair]
            if not all(isinstance(name, str) for name in one):
                return False
        elif isinstance(one, list | tuple) and depth < _DEEPEST:
            stack += [(part, depth + 1) for part in one]
        elif isinstance(one, str):
            if not is_text(one):
                return False
        elif isinstance(one, float):
            if not math.isfinite(one):
                return False
        elif one is not None and not isinstance(one, int):
            return False
    return True
