"""Valid flows for tests of rooms that are not about flows."""

from functools import cache
from pathlib import Path
from random import Random

from flowsmith.flows import Codec, Domain, Flow, Grammar, Schema

DOMAIN = Path(__file__).parent.parent / "miniature" / "domain.yaml"


@cache
def codec() -> Codec:
    """Return the miniature's codec."""
    return Codec(Schema.core(), Domain.from_yaml(DOMAIN))


@cache
def some_flows(number: int, seed: int = 0) -> tuple[Flow, ...]:
    """Return different valid flows of the miniature's domain."""
    grammar, rng, flows = Grammar(codec(), 80), Random(seed), dict[str, Flow]()
    while len(flows) < number:
        flow = codec().decode(grammar.random_walk(rng))
        flows[flow.key] = flow
    return tuple(flows.values())
