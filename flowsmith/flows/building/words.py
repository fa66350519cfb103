"""The domain of a corpus: what a policy that is trained on it may choose, and how long its flows are in tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from flowsmith.flows.building.installed import MODEL_INPUTS
from flowsmith.flows.codec import Codec
from flowsmith.flows.domain import Domain
from flowsmith.flows.flow import Flow, Value
from flowsmith.flows.language import CodecError
from flowsmith.flows.schema import Schema
from flowsmith.flows.wide.full_domain import full_domain

_SPARE = 1.25  # a budget this many times the longest flow leaves room for what combines several


@dataclass(frozen=True)
class Words:
    """How a corpus is spoken of.

    Attributes:
        schema: What is installed, of the classes and model files that the flows use.
        domain: What may be chosen.
        lengths: Tokens of each flow that has some, by name.
        unspoken: Why a flow has none, by name.
        tokens: How many there are.
    """

    schema: Schema
    domain: Domain
    lengths: Mapping[str, int]
    unspoken: Mapping[str, str]
    tokens: int

    def told(self) -> dict[str, float]:
        """Return statistics, and the budget that a policy may be given."""
        lengths = list(self.lengths.values()) or [0]
        return {
            "vocabulary": self.tokens,
            "tokens_median": median(lengths),
            "tokens_max": max(lengths),
            "budget": int(max(lengths) * _SPARE),
        }


def words_of(corpus: Mapping[str, Flow], schema: Schema) -> Words:
    """Return the domain of a corpus and its flows' lengths.

    Args:
        corpus: One flow or more, valid under the schema.
        schema: What is installed.
    """
    small = _used(corpus, schema)
    domain = full_domain(small, corpus.values())
    codec = Codec(small, domain)
    lengths, unspoken = dict[str, int](), dict[str, str]()
    for name, flow in corpus.items():
        try:
            lengths[name] = len(codec.encode(flow))
        except CodecError as error:
            unspoken[name] = str(error)
    return Words(small, domain, lengths, unspoken, codec.size)


def _used(corpus: Mapping[str, Flow], schema: Schema) -> Schema:
    """Return the schema of the classes that flows use, its lists of models cut to those that they name.

    What is in no flow (a file of unknown family, say) is nothing to choose.
    """
    classes: dict[str, None] = {}
    files: dict[str, dict[Value, None]] = {}
    for flow in corpus.values():
        for node in flow.nodes:
            classes[node.class_type] = None
            for name, value in node.inputs:
                if name in MODEL_INPUTS and isinstance(value, str):
                    files.setdefault(f"{node.class_type}.{name}", {})[value] = None
    return schema.restrict(sorted(classes), files)
