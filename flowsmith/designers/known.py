"""The flows that scored rows hold, read once: what designers without a language model choose from."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from flowsmith.designers.protocol import DesignerError
from flowsmith.flows import Domain, Flow
from flowsmith.flows.schema_beside import schema_beside
from flowsmith.scored_flows import read_scored_flows


@dataclass(frozen=True)
class KnownFlow:
    """A flow with the training scores that it got."""

    flow: Flow
    base_flow: str
    scores: tuple[float, ...]


def known_flows(scored_flows: Path | str, domain: Path | str) -> list[KnownFlow]:
    """Return every flow of the training split with its scores, by flow key.

    Args:
        scored_flows: File or folder of scored flows.
        domain: YAML file of what may be chosen.

    Raises:
        DesignerError: No training row was rendered and scored.
    """
    table = read_scored_flows(scored_flows, "train")
    table = table.filter(pc.is_valid(table["score"]))
    scores: dict[str, list[float]] = defaultdict(list)
    first: dict[str, tuple[str, str]] = {}
    columns = (table[name].to_pylist() for name in ("flow_key", "flow", "base_flow", "score"))
    for key, flow, base, score in zip(*columns, strict=True):
        scores[key].append(score)
        first.setdefault(key, (flow, base))
    if not first:
        raise DesignerError(
            f"scored_flows={scored_flows}: no scored row of the split train; collect some first"
        )
    schema = Domain.from_yaml(domain).restrict(schema_beside(domain))
    return [
        KnownFlow(Flow.from_template(first[key][0], schema), first[key][1], tuple(scores[key]))
        for key in sorted(first)
    ]
