"""What words a corpus speaks: node classes, settings and texts, and how often."""

from collections import Counter
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from flowsmith.flows.flow import Flow, Link

_MOST_VALUES = 20


def vocabulary_of(flows: Sequence[Flow]) -> dict[str, Any]:
    """Return statistics of a corpus as plain objects.

    Args:
        flows: One or more.

    Returns:
        Under ``classes`` in how many flows each stands; under ``values``, per "Class.input", how many different
        ones there are and the most frequent with their counts; under ``nodes`` and ``links`` the median and
        the 90th percentile per flow.
    """
    classes: Counter[str] = Counter()
    values: dict[str, Counter[str]] = {}
    links = []
    for flow in flows:
        classes.update({node.class_type for node in flow.nodes})
        links.append(sum(1 for node in flow.nodes for _ in node.links()))
        for node in flow.nodes:
            for name, value in node.inputs:
                if not isinstance(value, Link):
                    values.setdefault(f"{node.class_type}.{name}", Counter())[str(value)] += 1
    return {
        "flows": len(flows),
        "nodes": _spread([len(flow.nodes) for flow in flows]),
        "links": _spread(links),
        "classes": dict(classes.most_common()),
        "values": {
            target: {"different": len(counts), "most_frequent": dict(counts.most_common(_MOST_VALUES))}
            for target, counts in sorted(values.items())
        },
    }


def _spread(numbers: Sequence[int]) -> dict[str, float]:
    most = quantiles(numbers, n=10)[-1] if len(numbers) > 1 else numbers[0]
    return {"median": median(numbers), "p90": round(float(most), 1), "max": max(numbers)}
