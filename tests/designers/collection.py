"""A file of scored flows for designers that choose from what is known."""

import json
from pathlib import Path

from flowsmith.prompts import Split
from flowsmith.scored_flows import ScoredFlow, to_table, write_scored_flows
from tests.flows_for_tests import some_flows


def write_collection(path: Path, scores: dict[int, list[float]], split: Split = "train") -> str:
    """Write rows: index into ``some_flows(6)`` -> its scores, one prompt each."""
    flows = some_flows(6)
    rows = [
        ScoredFlow(
            sample_id=f"{split}/{i}/{j}", prompt_id=f"p{j}", prompt=f"prompt {j}", split=split,
            task="", designer="corpus", flow=json.dumps(flows[i].to_template()), flow_key=flows[i].key,
            base_flow=f"base{i}", seed=j, renderer="1", weights="w", judges={"clip": 0.0}, score=score, seconds=0.1,
        )
        for i, values in scores.items()
        for j, score in enumerate(values)
    ]  # fmt: skip
    write_scored_flows(path, to_table(rows))
    return str(path)
