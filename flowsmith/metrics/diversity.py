"""How many different flows a designer proposes, and how many that nobody had shown it.

Counted by structural key (numbers binned): 17 and 18 steps are one flow, so jitter in a number is no diversity.
"""

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from math import exp, log
from typing import Protocol


class HasKeys(Protocol):
    """What is counted here: anything with the two keys of a flow."""

    @property
    def key(self) -> str:
        """Hash of the whole flow."""

    @property
    def structural_key(self) -> str:
        """Hash of the flow with numbers binned."""


@dataclass(frozen=True)
class Diversity:
    """Counts over the flows of one designer.

    Attributes:
        flows: How many flows were looked at.
        unique_flows: Distinct structural keys.
        unique_keys: Distinct exact keys, >= unique_flows.
        novel_flows: Distinct structural keys that no training flow has.
        effective_flows: exp of the entropy of structural keys: n if n flows are used equally often, near 1 if
            one flow is used for almost every prompt, whatever else turns up once.
    """

    flows: int
    unique_flows: int
    unique_keys: int
    novel_flows: int
    effective_flows: float


def diversity(flows: Iterable[HasKeys], known: Set[str] = frozenset()) -> Diversity:
    """Count different and new flows.

    Args:
        flows: What a designer proposed, repetitions included.
        known: Structural keys of the training flows.
    """
    flows = list(flows)
    counts = Counter(flow.structural_key for flow in flows)
    entropy = -sum(n / len(flows) * log(n / len(flows)) for n in counts.values())
    return Diversity(
        flows=len(flows),
        unique_flows=len(counts),
        unique_keys=len({flow.key for flow in flows}),
        novel_flows=len(counts.keys() - known),
        effective_flows=exp(entropy) if flows else 0.0,
    )
