"""Random flows of a wide domain, validated, and what a mask costs as the domain grows."""

import time
from random import Random

from flowsmith.evaluation.imported_files import Measured
from flowsmith.evaluation.token_ratios import Wide
from flowsmith.flows import Codec, FlowIssue, validate
from flowsmith.flows.wide.full_domain import full_domain
from flowsmith.flows.wide.grammar import WideGrammar
from flowsmith.flows.wide.spelling import Merges
from flowsmith.flows.wide.state import WideState


def walk(codec: Codec, walks: int, budget: int, seed: int = 0) -> Measured:
    """Write flows at random and validate each; time masks that were never asked for before."""
    grammar, rng, valid, met = WideGrammar(codec, budget), Random(seed), 0, set[str]()
    for _ in range(walks):
        flow = codec.decode(grammar.random_walk(rng))
        issues: list[FlowIssue] = validate(flow, codec.schema) or codec.domain.issues(flow, codec.schema)
        valid += not issues
        met |= {node.class_type for node in flow.nodes}
    return {
        "walks": walks, "walks_valid": valid, "classes_walked": len(met), "mask_us": mask_time(codec, budget)
    }  # fmt: skip


def mask_time(codec: Codec, budget: int, walks: int = 50, seed: int = 1) -> float:
    """Return the mean microseconds of a mask, processor time of this thread, in a grammar that saw no state."""
    grammar, rng, states = WideGrammar(codec, budget), Random(seed), list[WideState]()
    for _ in range(walks):
        states += grammar.replay(grammar.random_walk(rng))
    fresh = WideGrammar(codec, budget)
    start = time.thread_time()
    for state in states:
        fresh.allowed(state)
    return (time.thread_time() - start) / len(states) * 1e6


def mask_growth(wide: Wide, budget: int) -> list[Measured]:
    """Time masks of smaller domains (of the shorter flows alone) and of one with ten times the files."""
    codec, flows = wide.codec, sorted(wide.flows, key=lambda flow: len(flow.nodes))
    merges = codec.domain.width.merges if codec.domain.width else None
    rows = []
    for share in (0.1, 0.3, 0.6):
        part = flows[: max(1, int(share * len(flows)))]
        rows.append(_timed(Codec(wide.schema, full_domain(wide.schema, part, merges=merges)), budget))
    return [*rows, _timed(codec, budget), _timed(_more_files(wide, merges), budget)]


def _timed(codec: Codec, budget: int) -> Measured:
    return {"classes": len(codec.domain.classes), "tokens": codec.size, "mask_us": mask_time(codec, budget)}


def _more_files(wide: Wide, merges: Merges | None) -> Codec:
    more = {
        f"{name}.{spec.name}": [*spec.choices, *(f"{k}/{one}" for k in range(9) for one in spec.choices)]
        for name in wide.codec.domain.classes
        for spec in wide.schema.nodes[name].inputs
        if spec.kind == "choice" and not spec.branches
    }
    schema = wide.schema.restrict(choices=more)
    return Codec(schema, full_domain(schema, wide.flows, list(wide.codec.domain.classes), merges))
