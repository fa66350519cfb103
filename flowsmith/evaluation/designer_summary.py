"""What came of one designer's samples: quality by the judges, what it proposed, how different that was."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from typing import Any

from flowsmith.flows import Codec, CodecError, Flow, FlowError, Schema
from flowsmith.metrics.diversity import diversity
from flowsmith.metrics.geneval import TASKS, geneval_accuracies
from flowsmith.scored_flows import JUDGE_PREFIX

Row = Mapping[str, Any]


def designer_summary(
    rows: list[Row], judges: Iterable[str], codec: Codec, known: Set[str], geneval: str
) -> dict[str, Any]:
    """Return everything but the comparison with others; quality and diversity are of the same samples.

    Args:
        rows: The designer's rows, at least one.
        judges: Whose means are wanted.
        codec: Counts tokens, and says with its schema what is valid.
        known: Structural keys of the training flows; others are novel.
        geneval: Judge whose verdicts (0 or 1; none where it abstained) are tabled by GenEval's tasks.
    """
    proposed = [parsed(row["flow"], codec.schema) for row in rows]
    flows = [flow for flow in proposed if flow is not None]
    count = diversity(flows, known)
    rendered = [row for row in rows if row["status"] == "ok"]
    return {
        "judges": {j: _mean(row[JUDGE_PREFIX + j] for row in rendered) for j in judges},
        "geneval": _geneval(rows, geneval),
        "geneval_abstained": _abstained(rendered, geneval),
        "valid": len(flows) / len(rows),
        "rendered": len(rendered) / len(rows),
        "unique_flows": count.unique_flows,
        "unique_per_sample": count.unique_flows / len(rows),
        "effective_flows": count.effective_flows,
        "differing_within_prompt": _differing(rows, proposed),
        "novel_flows": count.novel_flows,
        "tokens_per_flow": _mean(_tokens(flow, codec) for flow in flows),
        "seconds_per_image": _mean(row["seconds"] for row in rendered),
        "samples": len(rows),
    }


def parsed(flow: str, schema: Schema) -> Flow | None:
    """Return the flow of a row, or None if it is not valid."""
    try:
        return Flow.from_template(flow, schema)
    except FlowError:
        return None


def _differing(rows: list[Row], flows: list[Flow | None]) -> float:
    """Return the mean distance of two samples of one prompt: 1 if their structures differ, else 0; NaN without two."""
    of_prompt: dict[str, list[str]] = defaultdict(list)
    for row, flow in zip(rows, flows, strict=True):
        if flow is not None:
            of_prompt[row["prompt_id"]].append(flow.structural_key)
    distances = []
    for keys in of_prompt.values():
        pairs = len(keys) * (len(keys) - 1)
        if pairs:
            same = sum(keys.count(key) - 1 for key in keys)
            distances.append(1 - same / pairs)
    return _mean(distances)


def _tokens(flow: Flow, codec: Codec) -> float | None:
    """Return a flow's length in tokens; None for a valid one that is outside the domain, which has no tokens."""
    try:
        return float(len(codec.encode(flow)))
    except CodecError:
        return None


def _geneval(rows: list[Row], judge: str) -> dict[str, float | None]:
    """Return accuracy per task and overall; a picture that failed is wrong, what was not asked is null."""
    verdicts, tasks = [], []
    for row in rows:
        value = row.get(JUDGE_PREFIX + judge)
        if row["task"] in TASKS and (value is not None or row["status"] == "failed"):
            verdicts.append(0.0 if value is None else float(value))
            tasks.append(row["task"])
    return {k: None if math.isnan(v) else v for k, v in geneval_accuracies(verdicts, tasks).items()}


def _abstained(rendered: list[Row], judge: str) -> float:
    """Return the share of the pictures of GenEval's tasks on which it gave no verdict; NaN if it was never asked."""
    asked = [row for row in rendered if row["task"] in TASKS and JUDGE_PREFIX + judge in row]
    return _mean(float(row[JUDGE_PREFIX + judge] is None) for row in asked)


def _mean(values: Iterable[float | None]) -> float:
    present = [float(v) for v in values if v is not None]
    return sum(present) / len(present) if present else math.nan
