"""The tokens of a wide domain: those of a narrow one, and what it takes to write any flow of an installation.

Beyond `flowsmith.flows.language`: a value may be a link, a link may take several types (a union, or any), a switch
gives what goes into it, inputs depend on what a node is given, and what has no token is spelt in pieces. The
token of a new node says all that decides which inputs follow: its class, which dynamic inputs it has, which output
is linked and, of a switch, as what type:

    KSampler        CheckpointLoaderSimple#2        ComfyMathExpression(values.a)#1        ComfySwitchNode:MODEL

References count through all outputs that fit, whatever their role: a negative may well go on from a positive.
"""

from collections.abc import Mapping
from json import dumps
from typing import Any

from flowsmith.flows.domain import Domain
from flowsmith.flows.flow import Flow, Node, Value
from flowsmith.flows.inputs import InputSpec, fits
from flowsmith.flows.language import ABSENT, END, CodecError, Need, Pool, Production, Slot
from flowsmith.flows.match_types import output_types
from flowsmith.flows.node_type import NodeType
from flowsmith.flows.roles import Role, slot_role
from flowsmith.flows.schema import Schema
from flowsmith.flows.sizes import SizeRule
from flowsmith.flows.wide.spelling import Spelling
from flowsmith.flows.wide.width import Shape, Width, shape_of, wide_inputs

CLOSE = "close"
MOST_REFERENCES = 256
_CONDITIONING = "CONDITIONING"
_Key = tuple[str, Shape, Role | None, str | None, bool]


class WideLanguage:
    """Vocabulary and productions of a wide domain; the attributes are those of a `Language`.

    Attributes:
        spelling: Spells what has no token, if the domain can.
        close: Token that ends a literal.
        unbound: Productions of nodes whose inputs must match and nothing says as what; the grammar leaves them out.
    """

    def __init__(self, schema: Schema, domain: Domain) -> None:
        self.domain, self.width = domain, domain.width or Width()
        self.schema = domain.restrict(schema)
        self.feeding = frozenset(self.width.feeding)
        self._kinds = sorted(
            {k for n in self.schema.nodes.values() for k in _plain(n) if "," not in k and k != "*"}
        )
        names = [END, ABSENT]
        for name in domain.classes:
            names += self._class_tokens(name)
        outputs = sum(len(self.schema.nodes[name].outputs) * most for name, most in domain.classes.items())
        names += [f"ref:{k}" for k in range(min(outputs, MOST_REFERENCES))]
        self.meanings: dict[int, Value] = {}
        self._value_tokens: dict[tuple[str, str], tuple[int, ...]] = {}
        for role, texts in domain.texts.items():
            self._add_values(names, "", role, texts, quoted=True)
        for target, spec in self._value_inputs():
            grid = domain.values.get(target)
            if grid is not None and (target, target) not in self._value_tokens:
                values = domain.grid(target.removesuffix(f".{spec.name}"), spec) or ()
                self._add_values(names, target, target, values, quoted=spec.kind != "choice")
        self.spelling = None if self.width.merges is None else Spelling(self.width.merges)
        self.close = self.first_piece = -1
        if self.spelling:
            self.close, self.first_piece = len(names), len(names) + 1
            names += [CLOSE, *(f"text:{piece}" for piece in self.spelling.pieces)]
        self.vocabulary = tuple(names)
        self.ids: Mapping[str, int] = {name: place for place, name in enumerate(names)}
        if len(self.ids) != len(names):
            raise CodecError("two tokens have one name; give values and classes that differ as text")
        self.end, self.absent = self.ids[END], self.ids[ABSENT]
        self.references = tuple(token for name, token in self.ids.items() if name.startswith("ref:"))
        self.productions: list[Production] = []
        self.unbound: set[int] = set()
        self.makers: dict[Need, list[tuple[int, int, int]]] = {}
        self._places: dict[_Key, int] = {}
        self._waiting: list[Need] = []
        ends = [name for name in domain.classes if self.schema.nodes[name].is_output]
        self.roots = [
            (self.ids[_token(name, shape, 0, None)], self._production(name, shape, None, None, root=True))
            for name in ends
            for shape in self.width.shapes_of(name)
        ]
        while self._waiting:
            self._meet(self._waiting.pop())
        if not self.roots:
            raise CodecError(
                f"classes={list(domain.classes)}: none ends a flow; add an output class such as SaveImage"
            )

    def token(self, node: Node, slot: int, need: Need | None) -> str:
        """Name the token of a new node, whose output ``slot`` is linked (0 at the end of a flow)."""
        node_type = self.schema.nodes[node.class_type]
        kind = need.type if need and _match(node_type, slot) is not None else None
        return _token(node.class_type, shape_of(node_type, dict(node.inputs)), slot, kind)

    def find(self, node: Node, need: Need | None, slot: int = 0) -> Production:
        """Return a node's class as it is used for one need (None: at the end of a flow).

        Raises:
            CodecError: It cannot meet it within the domain.
        """
        node_type = self.schema.nodes[node.class_type]
        shape = shape_of(node_type, dict(node.inputs))
        kind = need.type if need and _match(node_type, slot) is not None else None
        key = (node.class_type, shape, need.role if need else None, kind, need is None)
        if key not in self._places:
            wanted = need.name if need else "flow"
            raise CodecError(f"{node.class_type}: cannot give a {wanted}; check the flow against the domain")
        return self.productions[self._places[key]]

    def narrow(self, need: Need, kind: str) -> Need:
        """Return what is asked of a node that meets a need with an output of type ``kind``."""
        return Need(kind, (need.role or "positive") if kind == _CONDITIONING else None)

    def accepts(self, need: Need, pool: Pool) -> bool:
        """Return whether references for a need count an output."""
        return fits(pool[0], need.type)

    def output_types(self, flow: Flow) -> list[tuple[str, ...]]:
        """Return the types that each node of a flow puts out; of a switch, of what goes into it."""
        types = {str(place): self.schema.nodes[node.class_type] for place, node in enumerate(flow.nodes, 1)}
        if not any(node_type.matches for node_type in types.values()):
            return [node_type.outputs for node_type in types.values()]
        return list(output_types(flow.to_template(), types, list(types)).values())

    def _add_values(
        self, names: list[str], target: str, prefix: str, values: tuple[Value, ...], quoted: bool
    ) -> None:
        ids = range(len(names), len(names) + len(values))
        self._value_tokens[target, prefix] = tuple(ids)
        self.meanings.update(zip(ids, values, strict=True))
        names += [f"{prefix}={dumps(value) if quoted else value}" for value in values]

    def _class_tokens(self, name: str) -> list[str]:
        node = self.schema.nodes[name]
        tokens: dict[str, None] = {}
        for shape in self.width.shapes_of(name):
            if node.is_output:
                tokens[_token(name, shape, 0, None)] = None
            for slot in range(len(node.outputs)):
                for kind in self._gives(node, shape, slot):
                    matched = _match(node, slot) is not None
                    tokens[_token(name, shape, slot, kind if matched else None)] = None
        return list(tokens)

    def _gives(self, node: NodeType, shape: Shape, slot: int) -> list[str]:
        """Return the types that an output can have."""
        match = _match(node, slot)
        if match is None:
            return [node.outputs[slot]]
        asked = [spec.type for spec in node.inputs_for(dict(shape)) if spec.match == match]
        return [kind for kind in self._kinds if all(fits(kind, one) for one in asked)]

    def _value_inputs(self) -> list[tuple[str, InputSpec]]:
        return [
            (f"{name}.{spec.name}", spec)
            for name in self.domain.classes
            for spec in wide_inputs(self.schema.nodes[name], self.width)
            if spec.kind != "link"
        ]

    def _values(self, name: str, spec: InputSpec, role: Role | None, shape: Shape) -> tuple[int, ...]:
        target = f"{name}.{spec.name}"
        own = self._value_tokens.get((target, target))
        if own is None:
            shared = spec.kind == "text" and spec.required
            return self._value_tokens["", role or "positive"] if shared else ()
        if spec.branches:
            return tuple(token for token in own if self.meanings[token] == dict(shape).get(spec.name))
        return own

    def _production(
        self, name: str, shape: Shape, role: Role | None, kind: str | None, root: bool = False
    ) -> int:
        """Return the place of a class in one shape and role, giving ``kind`` if what it gives must be said."""
        key = (name, shape, role, kind, root)
        if key in self._places:
            return self._places[key]
        node = self.schema.nodes[name]
        place = self._places[key] = len(self.productions)
        given = dict(shape)
        bound = {
            match for slot, match in enumerate(node.matches) if kind and match and slot < len(node.outputs)
        }
        slots: list[Slot] = []
        for spec in node.inputs_for(given):
            target, needed = f"{name}.{spec.name}", spec.required or spec.name in given
            if spec.seed:
                continue
            need, values = None, self._values(name, spec, role, shape) if spec.kind != "link" else ()
            if spec.kind == "link" or target in self.width.linked:
                if spec.kind != "link" or needed or target in self.width.linked:
                    need = self._need(spec, role, kind if spec.match in bound else None)
                if spec.match is not None and spec.match not in bound:
                    self.unbound.add(place)
            if values or need is not None:
                slots.append(Slot(spec.name, values, need, not needed, spec.kind))
        kinds = [kind if kind and _match(node, slot) else one for slot, one in enumerate(node.outputs)]
        pools = tuple((one, (role or "positive") if one == _CONDITIONING else None) for one in kinds)
        own = None if root else Need(kind or node.outputs[0], role)
        self.productions.append(Production(name, own, None, tuple(slots), pools, SizeRule()))
        return place

    def _need(self, spec: InputSpec, role: Role | None, kind: str | None) -> Need:
        wanted = kind or spec.type
        need = Need(wanted, slot_role(spec.name, role) if wanted == _CONDITIONING else None)
        if need not in self.makers:
            self.makers[need] = []
            self._waiting.append(need)
        return need

    def _meet(self, need: Need) -> None:
        """Find the productions that meet a need."""
        for name in self.domain.classes:
            node = self.schema.nodes[name]
            if node.is_output and name not in self.feeding:
                continue
            for shape in self.width.shapes_of(name):
                for slot in range(len(node.outputs)):
                    for kind in self._gives(node, shape, slot):
                        if fits(kind, need.type):
                            self._add_maker(need, node, shape, slot, kind)

    def _add_maker(self, need: Need, node: NodeType, shape: Shape, slot: int, kind: str) -> None:
        said = kind if _match(node, slot) is not None else None
        role = self.narrow(need, kind).role
        place = self._production(node.name, shape, role, said)
        self.makers[need].append((slot, self.ids[_token(node.name, shape, slot, said)], place))


def _token(name: str, shape: Shape, slot: int, kind: str | None) -> str:
    inside = ",".join(key if value is None else f"{key}={value}" for key, value in shape)
    return name + f"({inside})" * bool(inside) + f"#{slot}" * bool(slot) + (f":{kind}" if kind else "")


def _match(node: NodeType, slot: int) -> str | None:
    return node.matches[slot] if slot < len(node.matches) else None


def _plain(node: NodeType) -> list[Any]:
    """Return the types of those outputs that do not depend on inputs."""
    return [kind for slot, kind in enumerate(node.outputs) if _match(node, slot) is None]
