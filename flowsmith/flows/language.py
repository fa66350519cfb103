"""The tokens of a schema and a domain, and what may follow what: the common ground of codec and grammar.

A flow is written root first: an output node's class, then its inputs in the schema's order. A value is one
token; a link is either the class of a new node, whose inputs follow right there, or ``ref:k``, the k-th
latest completed output of the right type and role (0 = the latest). So what a link needs decides what a
token means, and the class of a node together with what it is needed for makes a *production*.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from json import dumps

from flowsmith.errors import FlowsmithError
from flowsmith.flows.domain import Domain
from flowsmith.flows.flow import Flow, Node, Value
from flowsmith.flows.inputs import Kind
from flowsmith.flows.roles import Role, slot_role
from flowsmith.flows.schema import InputSpec, NodeType, Schema
from flowsmith.flows.sizes import SIZE_RULES, SIZED_TYPES, SizeRule
from flowsmith.flows.stages import STAGED, Stages, Use, use_of

END = "end"
ABSENT = "absent"


Pool = tuple[str, Role | None]  # which completed outputs references count through: type and role


class CodecError(FlowsmithError):
    """Tokens are no flow, a flow has no tokens, or a domain gives no language."""


@dataclass(frozen=True)
class Need:
    """What a link asks for.

    Attributes:
        type: ComfyUI's type.
        role: For a conditioning, what it is for.
        sampled: For a latent, whether it must not be empty any more.
        noisy: For a latent, whether it must, or else must not, hold noise that was left (see `stages`).
    """

    type: str
    role: Role | None = None
    sampled: bool = False
    noisy: bool = False

    @property
    def name(self) -> str:
        """How messages call it."""
        words = [self.role or "", "sampled" * self.sampled, "noisy" * self.noisy, self.type]
        return " ".join(word for word in words if word)

    @property
    def pool(self) -> Pool:
        """Which completed outputs references count through."""
        return (self.type, self.role)


@dataclass(frozen=True)
class Slot:
    """One input of a production: values (their tokens), a need or, at full width, both.

    An optional one may also be absent. What ``kind`` of input it is matters where values are spelt.
    """

    name: str
    values: tuple[int, ...]
    need: Need | None
    optional: bool
    kind: Kind = "link"


@dataclass(frozen=True)
class Production:
    """A node class as it is used for one need (None: as the end of a flow) and, if it has several, in one use."""

    class_type: str
    need: Need | None
    use: Use | None
    slots: tuple[Slot, ...]
    outputs: tuple[Pool, ...]
    rule: SizeRule

    def place(self, name: str) -> int:
        """Return which slot has that name."""
        return next(place for place, slot in enumerate(self.slots) if slot.name == name)


class Language:
    """Vocabulary and productions of a domain.

    Attributes:
        vocabulary: The tokens, as text; ids are places in it.
        meanings: Value that a value token stands for.
        productions: All that can be reached from the output classes.
        roots: Token and place of the production per output class.
        makers: Per need, slot number within the class, token and place of each production that meets it.
        references: Ids of ``ref:0``, ``ref:1``, ...
        stages: What parts of a way fit together, or None if the domain has none or keeps none together.
        feeding: Output classes that other nodes may read from: none.
        spelling: How values without a token are spelt: they are not.
    """

    feeding: frozenset[str] = frozenset()
    spelling: None = None

    def __init__(self, schema: Schema, domain: Domain) -> None:
        self.schema = domain.restrict(schema)
        self.domain = domain
        staged = STAGED in domain.classes and domain.sample_empty_latents
        self.stages = Stages(domain.values) if staged else None
        optional = any(not spec.required for node in self.schema.nodes.values() for spec in node.flow_inputs)
        names = [END, ABSENT] if optional else [END]
        for name in domain.classes:
            node = self.schema.nodes[name]
            uses: list[Use | None] = [*self.stages.uses()] if self.stages and name == STAGED else [None]
            slots = range(max(1, len(node.outputs)))
            names += dict.fromkeys(class_token(node, slot, use) for use in uses for slot in slots)
        most = max(
            (self._most(kind) for kind in {t for n in self.schema.nodes.values() for t in n.outputs}),
            default=0,
        )
        names += [f"ref:{k}" for k in range(most)]
        self.meanings: dict[int, Value] = {}
        self._value_tokens: dict[tuple[str, str], tuple[int, ...]] = {}
        for target, spec, prefix, values in self._grids():
            if (target, prefix) not in self._value_tokens:
                ids = range(len(names), len(names) + len(values))
                self._value_tokens[target, prefix] = tuple(ids)
                self.meanings.update(zip(ids, values, strict=True))
                names += [f"{prefix}={value if spec.kind == 'choice' else dumps(value)}" for value in values]
        self.vocabulary = tuple(names)
        self.ids: Mapping[str, int] = {name: place for place, name in enumerate(names)}
        if len(self.ids) != len(names):
            raise CodecError("two tokens have one name; give values and classes that differ as text")
        self.end, self.absent = self.ids[END], self.ids.get(ABSENT, -1)
        self.references = tuple(self.ids[f"ref:{k}"] for k in range(most))
        self.productions: list[Production] = []
        self.makers: dict[Need, list[tuple[int, int, int]]] = {}
        self._places: dict[tuple[str, Need | None, Use | None], int] = {}
        outputs = [name for name in domain.classes if self.schema.nodes[name].is_output]
        self.roots = [(self.ids[name], self._production(name, None)) for name in outputs]
        if not self.roots:
            raise CodecError(
                f"classes={list(domain.classes)}: none ends a flow; add an output class such as SaveImage"
            )

    def _most(self, kind: str) -> int:
        """Return how many outputs of a type a flow can hold at most, output nodes aside."""
        nodes = (node for node in self.schema.nodes.values() if not node.is_output)
        return sum(node.outputs.count(kind) * self.domain.classes[node.name] for node in nodes)

    def _grids(self) -> list[tuple[str, InputSpec, str, tuple[Value, ...]]]:
        """List the value inputs; prompt texts are shared by all inputs of one role."""
        grids: list[tuple[str, InputSpec, str, tuple[Value, ...]]] = []
        for name in self.domain.classes:
            for spec in self.schema.nodes[name].flow_inputs:
                target = f"{name}.{spec.name}"
                if spec.kind == "link":
                    continue
                if target not in self.domain.values and spec.kind == "text" and spec.required:
                    grids += [("", spec, role, texts) for role, texts in self.domain.texts.items()]
                elif (grid := self.domain.grid(name, spec)) is not None:
                    grids.append((target, spec, target, grid))
        return grids

    def values(self, class_type: str, name: str, role: Role | None) -> tuple[int, ...]:
        """Return the tokens that may stand in a value input; none if it stays absent."""
        own = self._value_tokens.get((f"{class_type}.{name}", f"{class_type}.{name}"))
        return own if own is not None else self._value_tokens.get(("", role or "positive"), ())

    def token(self, node: Node, slot: int, need: Need | None) -> str:
        """Name the token of a new node, whose output ``slot`` is linked (0 at the end of a flow)."""
        return class_token(self.schema.nodes[node.class_type], slot, self.use(node))

    def narrow(self, need: Need, kind: str) -> Need:
        """Return what is asked of a node that meets a need with an output of type ``kind``."""
        return need

    def accepts(self, need: Need, pool: Pool) -> bool:
        """Return whether references for a need count an output."""
        return pool == need.pool

    def output_types(self, flow: Flow) -> list[tuple[str, ...]]:
        """Return the types that each node of a flow puts out."""
        return [self.schema.nodes[node.class_type].outputs for node in flow.nodes]

    def find(self, node: Node, need: Need | None, slot: int = 0) -> Production:
        """Return a node's class as it is used for one need, whichever its linked output.

        Raises:
            CodecError: It cannot meet it within the domain.
        """
        key = (node.class_type, need, self.use(node))
        if key not in self._places:
            wanted = need.name if need else "flow"
            raise CodecError(f"{node.class_type}: cannot give a {wanted}; check the flow against the domain")
        return self.productions[self._places[key]]

    def use(self, node: Node) -> Use | None:
        """Return in which way a node is used, if parts of a way are kept together."""
        return use_of(node) if self.stages else None

    def _uses(self, name: str, need: Need) -> list[Use | None]:
        """Return the uses of a class that meet a need."""
        if self.stages is None or name != STAGED:
            return [] if need.noisy else [None]
        return [use for use in self.stages.uses() if (use == "first") == need.noisy]

    def _production(self, name: str, need: Need | None, use: Use | None = None) -> int:
        if (name, need, use) in self._places:
            return self._places[name, need, use]
        place = self._places[name, need, use] = len(self.productions)
        node = self.schema.nodes[name]
        rule = SIZE_RULES.get(name, SizeRule())
        role = need.role if need else None
        outputs = tuple((kind, role if kind == "CONDITIONING" else None) for kind in node.outputs)
        slots: list[Slot] = []
        self.productions.append(Production(name, need, use, (), outputs, rule))
        for spec in node.flow_inputs:
            wanted = self._need(spec, node, need, use) if spec.kind == "link" else None
            values = self.values(name, spec.name, role) if wanted is None else ()
            if use is not None and self.stages is not None:
                kept = self.stages.fixed(use, spec.name, [self.meanings[token] for token in values])
                values = tuple(token for token in values if self.meanings[token] in kept)
            if values or (wanted is not None and self._met(wanted)):
                slots.append(Slot(spec.name, values, wanted, not spec.required))
            elif spec.required:
                raise CodecError(
                    f"{name}.{spec.name}: no class of the domain makes a {spec.type}; add one that does"
                )
        self.productions[place] = Production(name, need, use, tuple(slots), outputs, rule)
        order = [slot.name for slot in slots]
        for early, late in ((rule.through, rule.denoise), (rule.upscaler, rule.through)):
            if early and late and order.index(late) < order.index(early):
                raise CodecError(f"{name}: {late} comes before {early}; the grammar needs it after")
        return place

    def _need(self, spec: InputSpec, node: NodeType, need: Need | None, use: Use | None) -> Need:
        if spec.type == "CONDITIONING":
            return Need(spec.type, slot_role(spec.name, need.role if need else None))
        rule = SIZE_RULES.get(node.name, SizeRule())
        if spec.type != "LATENT" or spec.name != rule.through or not self.domain.sample_empty_latents:
            return Need(spec.type)
        if use == "last":
            return Need(spec.type, noisy=True)
        inherited = need is not None and need.sampled and rule.steps is None
        return Need("LATENT", sampled="LATENT" not in node.outputs or inherited)

    def _met(self, need: Need) -> bool:
        """Find the productions that meet a need; return whether there are any."""
        nodes = [
            node
            for node in (self.schema.nodes[name] for name in self.domain.classes)
            if need.type in node.outputs
            and not node.is_output
            and not (need.sampled and SIZE_RULES.get(node.name, SizeRule()).source)
            and self._uses(node.name, need)
        ]
        if need not in self.makers:
            makers = self.makers[
                need
            ] = []  # stands there before it is filled: productions may need themselves
            for node in nodes:
                for use in self._uses(node.name, need):
                    place = self._production(node.name, need, use)
                    slots = [slot for slot, kind in enumerate(node.outputs) if kind == need.type]
                    makers += [(slot, self.ids[class_token(node, slot, use)], place) for slot in slots]
        return bool(nodes)


def class_token(node: NodeType, slot: int, use: Use | None) -> str:
    """Name the token of a new node by the output that is linked: its class, unless a type comes out twice.

    What a node needs must follow from its token, so the last part of a way, which goes on with what another
    node leaves, has one of its own.
    """
    first = not node.outputs or node.outputs.index(node.outputs[slot]) == slot
    return (node.name if first else f"{node.name}#{slot}") + ":continue" * (use == "last")


def is_sized(need: Need) -> bool:
    """Return whether what is needed has an area."""
    return need.type in SIZED_TYPES
