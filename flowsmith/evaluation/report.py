"""From scored rows to ``results.json``: what each designer proposed, what came of it, who beats whom by how much."""

from collections import defaultdict
from collections.abc import Set
from typing import Any

import pyarrow as pa

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.dense_block import DenseBlock
from flowsmith.evaluation.dense_oracle import dense_oracle
from flowsmith.evaluation.designer_summary import Row, designer_summary
from flowsmith.evaluation.statistics import Samples, mean_interval, paired_difference, win_rate
from flowsmith.flows import Codec
from flowsmith.scored_flows import JUDGE_PREFIX


class ReportError(FlowsmithError):
    """Rows from which no comparison can be made."""


def evaluation_results(
    table: pa.Table,
    codec: Codec,
    known: Set[str],
    held_out: str = "geneval",
    *,
    preference: str | None = None,
    dense: DenseBlock | None = None,
) -> dict[str, Any]:
    """Return what ``results.json`` holds, but for the run's own facts (seeds, revision).

    Prompts are the independent unit of every interval. A sample that failed to render counts with the worst score of
    the table (and the worst preference), so that failing never pays.

    Args:
        table: Scored rows of all designers over the same prompts.
        codec: Counts tokens, and says with its schema what is valid.
        known: Structural keys of the training flows; others are novel.
        held_out: Judge whose verdicts (0 or 1) are tabled by GenEval's tasks.
        preference: Judge outside the score that win rates are told by, beside those by the score.
        dense: Dense block with scores of the same scale, whose per-prompt oracle is the ceiling; prompts that the
            table lacks are left out.

    Returns:
        ``designers``, ``win_rate``, ``paired`` and ``prompts``; ``preference`` with its own ``win_rate`` and
        ``oracle`` where they were asked for.

    Raises:
        ReportError: A rendered row has no score, or no preference; it is not a failed one, so no value would be true
            of it.
    """
    rows_of: dict[str, list[Row]] = defaultdict(list)
    for row in table.to_pylist():
        rows_of[row["designer"]].append(row)
    unscored = _without(rows_of, "score")
    if unscored:
        raise ReportError(
            f"{unscored} rendered rows have no score: list ImageMetrics with score= before ScoredFlowWriter, or give "
            "ScoredFlowWriter score_weights="
        )
    scores = _samples(rows_of, "score")
    judges = [c.removeprefix(JUDGE_PREFIX) for c in table.column_names if c.startswith(JUDGE_PREFIX)]
    means = [judge for judge in judges if judge != held_out]
    results: dict[str, Any] = {
        "designers": {
            name: {
                "score": mean_interval(scores[name]).to_json(),
                **designer_summary(rows, means, codec, known, held_out),
            }
            for name, rows in rows_of.items()
        },
        "win_rate": _win_rates(scores),
        "paired": {
            a: {b: paired_difference(scores[a], scores[b]).to_json() for b in scores if b != a}
            for a in scores
        },
        "prompts": len({row["prompt_id"] for rows in rows_of.values() for row in rows}),
    }
    if preference is not None:
        if preference not in judges or _without(rows_of, JUDGE_PREFIX + preference):
            raise ReportError(
                f"held_out_preference={preference!r} has not judged every rendered row; these rows have "
                f"{', '.join(judges) or 'no judge'}: list it under ImageMetrics and start with --fresh"
            )
        by_preference = _samples(rows_of, JUDGE_PREFIX + preference)
        results["preference"] = {"judge": preference, "win_rate": _win_rates(by_preference)}
    if dense is not None:
        results["oracle"] = dense_oracle(dense, scores)
    return results


def _without(rows_of: dict[str, list[Row]], column: str) -> int:
    return sum(row["status"] == "ok" and row[column] is None for rows in rows_of.values() for row in rows)


def _samples(rows_of: dict[str, list[Row]], column: str) -> dict[str, Samples]:
    """Return designer -> prompt -> values of a column; failed samples have the worst of all."""
    present = [row[column] for rows in rows_of.values() for row in rows if row[column] is not None]
    worst = min(present, default=0.0)
    found: dict[str, Samples] = {}
    for name, rows in rows_of.items():
        values: dict[str, list[float]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: str(row["sample_id"])):
            values[row["prompt_id"]].append(worst if row[column] is None else float(row[column]))
        found[name] = values
    return found


def _win_rates(values: dict[str, Samples]) -> dict[str, dict[str, Any]]:
    return {a: {b: win_rate(values[a], values[b]).to_json() for b in values if b != a} for a in values}
