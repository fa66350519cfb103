"""The corpus: hand-written flows from a folder, and random variants of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from flowsmith.errors import FlowsmithError
from flowsmith.flows.domain import Domain
from flowsmith.flows.flow import Flow, Link, Node, Value
from flowsmith.flows.issues import FlowError, FlowIssue, whole
from flowsmith.flows.roles import node_roles
from flowsmith.flows.schema import Schema
from flowsmith.flows.stages import LATENT, SHARED, use_of
from flowsmith.flows.validate import validate

# What a variant changes; sizes and the structure of passes stay as their author meant them.
VARIED = frozenset(
    {
        "ckpt_name",
        "lora_name",
        "strength_model",
        "strength_clip",
        "sampler_name",
        "scheduler",
        "cfg",
        "steps",
        "text",
        "multiplier",
        "stop_at_clip_layer",
        "vae_name",
        "sigma",
        "alpha",
    }
)
_LORA = "LoraLoader"
_TRIES = 400  # per flow asked for, before giving up


class CorpusError(FlowsmithError):
    """A folder gives no corpus, or a corpus not as many variants as asked for."""


def load_corpus(folder: Path | str, schema: Schema) -> dict[str, Flow]:
    """Read a folder of flows in templated API format.

    Args:
        folder: Holds ``<name>.json`` files.
        schema: Nodes and model files that exist.

    Returns:
        Flows by file name without its ending, in the order of names.

    Raises:
        CorpusError: No such file is there, or two hold the same flow.
        FlowError: A file holds no valid flow.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise CorpusError(f"folder={folder}: holds no .json file; name a folder of flows")
    flows: dict[str, Flow] = {}
    names: dict[str, str] = {}
    for path in paths:
        try:
            flow = Flow.from_template(path.read_text(encoding="utf-8"), schema)
        except FlowError as error:
            raise FlowError(error.issues, str(path)) from error
        except (OSError, UnicodeDecodeError) as error:
            message = f"cannot be read ({error}); give UTF-8 JSON"
            raise FlowError([whole("invalid_json", path.name, "UTF-8 JSON", message)], str(path)) from error
        if flow.key in names:
            raise CorpusError(f"{path}: the same flow as {names[flow.key]}.json; take one of them out")
        names[flow.key] = path.stem
        flows[path.stem] = flow
    return flows


def augment(
    base_flows: Mapping[str, Flow], domain: Domain, schema: Schema, rng: Random, n: int
) -> list[tuple[str, Flow]]:
    """Return the base flows and random variants of them, evenly over the bases.

    A variant differs from its base in one or more of checkpoint, LoRA (swapped, put in, taken out,
    strengths), sampler, scheduler, guidance, steps, texts, and the values of patches, VAE and sharpening where
    there are any; nodes that walk one way change their steps, sampler and scheduler together. Each is valid,
    in the domain, and no two have one key.

    Args:
        base_flows: Flows of the domain, by name.
        domain: Where values are drawn from.
        schema: Nodes and model files that exist.
        rng: Source of all choices.
        n: How many flows to return, the base flows among them.

    Returns:
        ``n`` pairs of base name and flow, the base flows first.

    Raises:
        CorpusError: There are more base flows than ``n``, or the domain is too small for so many variants.
        FlowError: A base flow is not in the domain.
    """
    schema = domain.restrict(schema)
    if not base_flows or len(base_flows) > n:
        raise CorpusError(
            f"n={n}: there are {len(base_flows)} base flows; ask for as many or more, from at least one"
        )
    found: dict[str, tuple[str, Flow]] = {}
    for name, flow in base_flows.items():
        domain.check(flow, schema, name)
        found.setdefault(flow.key, (name, flow))
    names = list(base_flows)
    for number in range(_TRIES * n):
        if len(found) >= n:
            break
        name = names[number % len(names)]
        flow = vary(base_flows[name], domain, schema, rng)
        if flow.key not in found and not _wrong(flow, domain, schema):
            found[flow.key] = (name, flow)
    if len(found) < n:
        raise CorpusError(
            f"n={n}: only {len(found)} different flows were found around {len(base_flows)} bases; ask for "
            "fewer, or widen the domain"
        )
    return list(found.values())


def vary(flow: Flow, domain: Domain, schema: Schema, rng: Random) -> Flow:
    """Return a flow after one to four random changes; it may lie outside of the domain's bounds."""
    changes: list[Callable[[Flow, Domain, Schema, Random], Flow]] = [
        _swap,
        _swap,
        _swap,
        _insert_lora,
        _remove_lora,
    ]
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        flow = rng.choice(changes)(flow, domain, schema, rng)
    return flow


def _wrong(flow: Flow, domain: Domain, schema: Schema) -> list[FlowIssue]:
    return validate(flow, schema) or domain.issues(flow, schema)


def _swap(flow: Flow, domain: Domain, schema: Schema, rng: Random) -> Flow:
    """Draw one value anew."""
    types = [schema.node(node.class_type) for node in flow.nodes]
    roles = node_roles(flow.nodes, ["CONDITIONING" in node_type.outputs for node_type in types])
    places: list[tuple[int, str, list[Value]]] = []
    for place, (node, node_type, role) in enumerate(zip(flow.nodes, types, roles, strict=True)):
        for spec in node_type.flow_inputs:
            now = node.get(spec.name)
            if spec.name in VARIED and now is not None and not isinstance(now, Link):
                others = [value for value in domain.grid(node.class_type, spec, role) or () if value != now]
                if others:
                    places.append((place, spec.name, others))
    if not places:
        return flow
    place, name, others = rng.choice(places)
    value, nodes = rng.choice(others), list(flow.nodes)
    for part in _way(flow, place) if name in SHARED else [place]:
        nodes[part] = _with(nodes[part], {name: value})
    return Flow.from_nodes(nodes, schema)


def _way(flow: Flow, place: int) -> list[int]:
    """Return the places of the nodes that walk one way with a node (see `stages`), its own among them."""
    firsts = {p: p for p, node in enumerate(flow.nodes) if use_of(node) == "first"}
    for p, node in enumerate(flow.nodes):
        link = node.get(LATENT)
        if use_of(node) == "last" and isinstance(link, Link):
            firsts[p] = link.node
    return [p for p in range(len(flow.nodes)) if p == place or firsts.get(p, -1) == firsts.get(place, place)]


def _insert_lora(flow: Flow, domain: Domain, schema: Schema, rng: Random) -> Flow:
    """Put a LoRA behind a node that gives a model and its text encoder, for all who use either."""
    if _LORA not in domain.classes:
        return flow
    slots: list[tuple[Link, Link]] = []
    for place, node in enumerate(flow.nodes):
        outputs = schema.node(node.class_type).outputs
        if "MODEL" in outputs and "CLIP" in outputs:
            slots.append((Link(place, outputs.index("MODEL")), Link(place, outputs.index("CLIP"))))
    if not slots:
        return flow
    model, clip = rng.choice(slots)
    own = schema.node(_LORA)
    new = len(flow.nodes)
    moved = {model: Link(new, own.outputs.index("MODEL")), clip: Link(new, own.outputs.index("CLIP"))}
    drawn: dict[str, Value | Link] = {"model": model, "clip": clip}
    for spec in own.flow_inputs:
        grid = domain.grid(_LORA, spec)
        if spec.name not in drawn and grid:
            drawn[spec.name] = rng.choice(grid)
    lora = Node(_LORA, tuple((spec.name, drawn[spec.name]) for spec in own.flow_inputs if spec.name in drawn))
    return Flow.from_nodes([*(_relinked(node, moved) for node in flow.nodes), lora], schema)


def _remove_lora(flow: Flow, domain: Domain, schema: Schema, rng: Random) -> Flow:
    """Take a LoRA out; who used it uses what it was put on."""
    places = [place for place, node in enumerate(flow.nodes) if node.class_type == _LORA]
    if not places:
        return flow
    place = rng.choice(places)
    outputs = schema.node(_LORA).outputs
    model, clip = flow.nodes[place].get("model"), flow.nodes[place].get("clip")
    if not isinstance(model, Link) or not isinstance(clip, Link):
        return flow
    moved = {Link(place, outputs.index("MODEL")): model, Link(place, outputs.index("CLIP")): clip}
    return Flow.from_nodes([_relinked(node, moved) for node in flow.nodes], schema)


def _with(node: Node, changes: Mapping[str, Value | Link]) -> Node:
    return Node(node.class_type, tuple((name, changes.get(name, value)) for name, value in node.inputs))


def _relinked(node: Node, moved: Mapping[Link, Link]) -> Node:
    links = {name: moved.get(link, link) for name, link in node.links()}
    return _with(node, links)
