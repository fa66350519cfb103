"""Flow to tokens and back, exactly."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from flowsmith.files import atomic_write
from flowsmith.flows.domain import Domain
from flowsmith.flows.flow import Flow, Link, Node, Value
from flowsmith.flows.inputs import Kind, normalise
from flowsmith.flows.language import CodecError, Language, Need, Pool, Production, Slot
from flowsmith.flows.schema import Schema
from flowsmith.flows.wide.language import WideLanguage

_FILE = "codec.json"
_VERSION = 1


class Codec:
    """Writes flows of a domain as tokens: root first, links as new nodes or as references (see `language`).

    Attributes:
        schema: The schema, restricted to the domain.
        domain: What may be chosen.
        vocabulary: The tokens as text, for instance "KSampler", "ref:0", "KSampler.steps=20", "end".
    """

    def __init__(self, schema: Schema, domain: Domain) -> None:
        """Lay out the vocabulary.

        Raises:
            DomainError: The domain contradicts the schema.
            CodecError: The domain's classes cannot make a flow.
        """
        self.language: Language | WideLanguage
        self.language = Language(schema, domain) if domain.width is None else WideLanguage(schema, domain)
        self.schema, self.domain = self.language.schema, domain
        self.vocabulary = self.language.vocabulary
        self.fingerprint = sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[type["Codec"], tuple[Schema, Domain]]:
        return type(self), (self.schema, self.domain)

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.vocabulary)

    def encode(self, flow: Flow) -> list[int]:
        """Write a flow as token ids, the end token last.

        Raises:
            CodecError: The flow holds what the domain has no token for, or nodes too deep in one another.
        """
        try:
            return _Writer(self.language, flow).tokens()
        except RecursionError as error:
            raise _too_deep(f"the {len(flow.nodes)} nodes of the flow") from error

    def decode(self, ids: Sequence[int]) -> Flow:
        """Read token ids, the end token last, as a flow.

        Raises:
            CodecError: They are not the tokens of a flow, or its nodes stand too deep in one another.
        """
        try:
            nodes = _Reader(self.language, ids).nodes()
        except RecursionError as error:
            raise _too_deep(f"what {len(ids)} tokens say") from error
        return Flow.from_nodes(nodes, self.schema)

    def save(self, folder: Path | str) -> None:
        """Write ``codec.json`` into a folder; `load` makes an equal codec of it."""
        with atomic_write(Path(folder) / _FILE) as temporary:
            content = {**self._content(), "fingerprint": self.fingerprint}
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> "Codec":
        """Read a codec.

        Raises:
            CodecError: The file is missing or damaged, or was written by a version with another vocabulary.
        """
        path = Path(folder) / _FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            schema, domain, saved = content["schema"], content["domain"], content["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CodecError(
                f"codec={path}: cannot be read ({error!r}); name a folder that a codec was saved in"
            ) from error
        codec = cls(Schema.from_object_info(schema), Domain.from_json(domain, str(path)))
        if codec.fingerprint != saved:
            raise CodecError(
                f"codec={path}: its fingerprint is {saved}, its content gives {codec.fingerprint}; it was "
                "edited or written by another version, so make the export again"
            )
        return codec

    def _content(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "schema": self.schema.to_object_info(),
            "domain": self.domain.to_json(),
            "vocabulary": list(self.vocabulary),
        }


def _too_deep(what: str) -> CodecError:
    return CodecError(
        f"{what} link more nodes in a row than can be walked along; give a flow with shorter chains"
    )


class _Writer:
    """Encodes one flow."""

    def __init__(self, language: Language | WideLanguage, flow: Flow) -> None:
        self.language, self.flow = language, flow
        self.written: dict[int, Production] = {}  # completed nodes by place, in order
        self.out: list[int] = []
        self.types: list[tuple[str, ...]] = []

    def tokens(self) -> list[int]:
        ends = [p for p, n in enumerate(self.flow.nodes) if self._class(n.class_type).is_output]
        if self.language.feeding:  # where an output node is read from, it is written
            fed = {link.node for node in self.flow.nodes for _, link in node.links()}
            feeding = self.language.feeding
            ends = [p for p in ends if p not in fed or self.flow.nodes[p].class_type not in feeding]
        self.types = self.language.output_types(self.flow)
        for place in ends:
            self._node(place, 0, None)
        self.out.append(self.language.end)
        return self.out

    def _class(self, name: str) -> Any:
        if name not in self.language.schema.nodes:
            raise CodecError(f"class {name}: not in the domain; {sorted(self.language.domain.classes)} are")
        return self.language.schema.nodes[name]

    def _token(self, name: str) -> int:
        if name not in self.language.ids:
            raise CodecError(f"token {name}: not in the vocabulary; check the flow against the domain")
        return self.language.ids[name]

    def _node(self, place: int, slot: int, need: Need | None) -> None:
        if place in self.written:
            raise CodecError("an output node feeds another; link what it shows instead")
        node = self.flow.nodes[place]
        token = self._token(self.language.token(node, slot, need))
        production = self.language.find(node, need, slot)
        self.out.append(token)
        extra = {name for name, _ in node.inputs} - {slot.name for slot in production.slots}
        if extra:
            raise CodecError(
                f"{node.class_type}.{min(extra)}: the domain leaves it out; give it values there"
            )
        for given in production.slots:
            value = node.get(given.name)
            if value is None and given.optional:
                self.out.append(self.language.absent)
            elif isinstance(value, Link) and given.need is not None:
                self._link(value, given.need)
            else:
                self.out += self._value(node.class_type, given, value)
        self.written[place] = production

    def _link(self, link: Link, need: Need) -> None:
        if link.node not in self.written:
            self._class(self.flow.nodes[link.node].class_type)
            self._node(link.node, link.slot, self.language.narrow(need, self.types[link.node][link.slot]))
            return
        back = 0
        for place, production in reversed(self.written.items()):
            if production.need is None:
                continue
            for slot in range(len(production.outputs) - 1, -1, -1):
                if self.language.accepts(need, production.outputs[slot]):
                    if (place, slot) == (link.node, link.slot):
                        self.out.append(self._token(f"ref:{back}"))
                        return
                    back += 1
        raise CodecError(
            f"a link needs a {need.name}, but leads to a node of another use or to an output node"
        )

    def _value(self, class_type: str, slot: Slot, value: Value | Link | None) -> list[int]:
        for token in slot.values:
            meaning = self.language.meanings[token]
            if meaning == value and type(meaning) is type(value):
                return [token]
        if isinstance(self.language, WideLanguage) and self.language.spelling and isinstance(value, Value):
            pieces = self.language.spelling.spell(_written(value, slot.kind))
            return [*(self.language.first_piece + piece for piece in pieces), self.language.close]
        allowed = [self.language.meanings[token] for token in slot.values]
        raise CodecError(f"{class_type}.{slot.name}={value!r}: no token for it; the domain has {allowed}")


def _written(value: Value, kind: Kind) -> str:
    """Return what a literal spells: a text as it is, anything else as JSON."""
    return value if kind == "text" and isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _meant(written: str, kind: Kind) -> Value:
    if kind == "text":
        return written
    try:
        value = json.loads(written)
        if not isinstance(value, Value) or (kind in ("int", "float") and isinstance(value, str)):
            raise ValueError("it is no such value")
        return normalise(value, kind)
    except (ValueError, RecursionError, OverflowError) as error:
        raise CodecError(
            f"tokens: the literal {written[:80]!r} is no {kind} ({error}); write JSON"
        ) from error


class _Reader:
    """Decodes one token sequence, by descent."""

    def __init__(self, language: Language | WideLanguage, ids: Sequence[int]) -> None:
        self.language, self.ids, self.place = language, ids, 0
        self.found: list[Node] = []
        self.outputs: list[tuple[Pool, Link]] = []  # completed ones that can be referred to

    def nodes(self) -> list[Node]:
        roots = dict(self.language.roots)
        while (token := self._next()) != self.language.end:
            if token not in roots:
                raise self._wrong(token, "an output class or end")
            self._node(roots[token])
        if self.place != len(self.ids):
            raise CodecError(f"tokens: {len(self.ids) - self.place} stand after the end token; cut them off")
        if not self.found:
            raise CodecError("tokens: end comes first; write an output class before it")
        return self.found

    def _next(self) -> int:
        if self.place >= len(self.ids):
            raise CodecError(
                f"tokens: the flow is not complete after {len(self.ids)}; go on to the end token"
            )
        self.place += 1
        return self.ids[self.place - 1]

    def _wrong(self, token: int, wanted: str) -> CodecError:
        names = self.language.vocabulary
        name = names[token] if 0 <= token < len(names) else f"id {token}"
        return CodecError(f"tokens: {name!r} at place {self.place - 1}, where {wanted} must stand")

    def _node(self, place: int) -> int:
        production = self.language.productions[place]
        inputs: list[tuple[str, Value | Link]] = []
        for slot in production.slots:
            token = self._next()
            if slot.optional and token == self.language.absent:
                continue
            if token in slot.values:
                inputs.append((slot.name, self.language.meanings[token]))
            elif slot.kind != "link" and self._spells(token):
                inputs.append((slot.name, self._literal(token, slot.kind)))
            elif slot.need is not None:
                inputs.append((slot.name, self._link(token, slot.need)))
            else:
                raise self._wrong(token, f"a value of {production.class_type}.{slot.name}")
        self.found.append(Node(production.class_type, tuple(inputs)))
        if production.need is not None:
            node = len(self.found) - 1
            self.outputs += [(pool, Link(node, number)) for number, pool in enumerate(production.outputs)]
        return len(self.found) - 1

    def _spells(self, token: int) -> bool:
        return isinstance(self.language, WideLanguage) and 0 <= self.language.close <= token

    def _literal(self, token: int, kind: Kind) -> Value:
        assert isinstance(self.language, WideLanguage)  # others spell nothing
        assert self.language.spelling is not None
        pieces: list[int] = []
        while token != self.language.close:
            place = token - self.language.first_piece
            if not 0 <= place < len(self.language.spelling.pieces):
                raise self._wrong(token, "a piece of a literal or its end")
            pieces.append(place)
            token = self._next()
        return _meant(self.language.spelling.read(pieces), kind)

    def _link(self, token: int, need: Need) -> Link:
        for slot, maker, place in self.language.makers[need]:
            if token == maker:
                return Link(self._node(place), slot)
        seen = [link for pool, link in self.outputs if self.language.accepts(need, pool)]
        for back, reference in enumerate(self.language.references[: len(seen)]):
            if token == reference:
                return seen[-1 - back]
        raise self._wrong(token, f"a class or reference that gives a {need.type}")
