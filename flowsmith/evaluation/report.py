"""From scored rows to the table: what each designer proposed, what came of it, and who beats whom by how much."""

import json
import math
from collections import defaultdict
from collections.abc import Set
from typing import Any

import pyarrow as pa

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.statistics import Samples, mean_interval, paired_difference, win_rate
from flowsmith.flows import Codec, CodecError, Flow, FlowError, Schema
from flowsmith.metrics.diversity import diversity
from flowsmith.metrics.geneval import TASKS, geneval_accuracies
from flowsmith.scored_flows import JUDGE_PREFIX


class ReportError(FlowsmithError):
    """Rows from which no comparison can be made."""


def evaluation_results(
    table: pa.Table, codec: Codec, known: Set[str], held_out: str = "geneval"
) -> dict[str, Any]:
    """Return what ``results.json`` holds, but for the run's own facts (seeds, revision).

    Prompts are the independent unit of every interval. A sample that failed to render counts with the worst score of
    the table, so that failing never pays.

    Args:
        table: Scored rows of all designers over the same prompts.
        codec: Counts tokens, and says with its schema what is valid.
        known: Structural keys of the training flows; others are novel.
        held_out: Judge whose verdicts (0 or 1) are tabled by GenEval's tasks.

    Returns:
        ``designers``, ``win_rate``, ``paired`` and ``prompts``.

    Raises:
        ReportError: A rendered row has no score; it is not a failed one, so no value would be true of it.
    """
    rows_of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_pylist():
        rows_of[row["designer"]].append(row)
    unscored = sum(
        row["status"] == "ok" and row["score"] is None for rows in rows_of.values() for row in rows
    )
    if unscored:
        raise ReportError(
            f"{unscored} rendered rows have no score: list ImageMetrics with score= before ScoredFlowWriter, or give "
            "ScoredFlowWriter score_weights="
        )
    worst = min(
        (row["score"] for rows in rows_of.values() for row in rows if row["score"] is not None), default=0.0
    )
    scores: dict[str, Samples] = {name: _by_prompt(rows, worst) for name, rows in rows_of.items()}
    judges = [c.removeprefix(JUDGE_PREFIX) for c in table.column_names if c.startswith(JUDGE_PREFIX)]
    designers = {}
    for name, rows in rows_of.items():
        proposed = [parsed(row["flow"], codec.schema) for row in rows]
        flows = [flow for flow in proposed if flow is not None]
        count = diversity(flows, known)
        rendered = [row for row in rows if row["status"] == "ok"]
        designers[name] = {
            "score": mean_interval(scores[name]).to_json(),
            "judges": {
                j: _mean([row[JUDGE_PREFIX + j] for row in rendered]) for j in judges if j != held_out
            },
            "geneval": _geneval(rows, held_out),
            "valid": len(flows) / len(rows),
            "rendered": len(rendered) / len(rows),
            "unique_flows": count.unique_flows,
            "novel_flows": count.novel_flows,
            "tokens_per_flow": _mean([_tokens(flow, codec) for flow in flows]),
            "seconds_per_image": _mean([row["seconds"] for row in rendered]),
            "samples": len(rows),
        }
    names = list(rows_of)
    return {
        "designers": designers,
        "win_rate": {
            a: {b: win_rate(scores[a], scores[b]).to_json() for b in names if b != a} for a in names
        },
        "paired": {
            a: {b: paired_difference(scores[a], scores[b]).to_json() for b in names if b != a} for a in names
        },
        "prompts": len({row["prompt_id"] for rows in rows_of.values() for row in rows}),
    }


def parsed(flow: str, schema: Schema) -> Flow | None:
    """Return the flow of a row, or None if it is not valid."""
    try:
        return Flow.from_template(flow, schema)
    except FlowError:
        return None


def ranked(results: dict[str, Any]) -> list[str]:
    """Return the designers' names, best mean score first."""
    designers: dict[str, Any] = results["designers"]
    return sorted(designers, key=lambda name: -designers[name]["score"]["mean"])


def evaluation_table(results: dict[str, Any]) -> str:
    """Return the results as a table for a terminal (and for Markdown), best score first."""
    head = [
        "designer",
        "score (95 % CI)",
        "GenEval",
        "valid",
        "rendered",
        "unique",
        "novel",
        "tokens",
        "s/image",
    ]
    lines = []
    for name in ranked(results):
        r = results["designers"][name]
        mean, (low, high) = r["score"]["mean"], (math.nan if e is None else e for e in r["score"]["ci95"])
        lines.append(
            [
                name,
                f"{mean:+.3f} ({low:+.3f} to {high:+.3f})",
                "-" if r["geneval"]["overall"] is None else f"{r['geneval']['overall']:.3f}",
                f"{100 * r['valid']:.0f} %",
                f"{100 * r['rendered']:.0f} %",
                str(r["unique_flows"]),
                str(r["novel_flows"]),
                f"{r['tokens_per_flow']:.1f}",
                f"{r['seconds_per_image']:.3f}",
            ]
        )
    widths = [max(len(row[i]) for row in [head, *lines]) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in [head, rule, *lines]
    )


def _tokens(flow: Flow, codec: Codec) -> float | None:
    """Return a flow's length in tokens; None for a valid one that is outside the domain, which has no tokens."""
    try:
        return float(len(codec.encode(flow)))
    except CodecError:
        return None


def _by_prompt(rows: list[dict[str, Any]], worst: float) -> dict[str, list[float]]:
    values: dict[str, list[float]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: str(row["sample_id"])):
        values[row["prompt_id"]].append(worst if row["score"] is None else float(row["score"]))
    return values


def _geneval(rows: list[dict[str, Any]], judge: str) -> dict[str, float | None]:
    """Return accuracy per task and overall; a picture that failed is wrong, what was not asked is null."""
    verdicts, tasks = [], []
    for row in rows:
        value = row.get(JUDGE_PREFIX + judge)
        if row["task"] in TASKS and (value is not None or row["status"] == "failed"):
            verdicts.append(0.0 if value is None else float(value))
            tasks.append(row["task"])
    return {k: None if math.isnan(v) else v for k, v in geneval_accuracies(verdicts, tasks).items()}


def _mean(values: list[float | None]) -> float:
    present = [float(v) for v in values if v is not None]
    return sum(present) / len(present) if present else math.nan


def dumps(results: dict[str, Any]) -> str:
    """Return strict JSON: what is not a number is null."""
    return json.dumps(_strict(results), indent=2, ensure_ascii=False) + "\n"


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
