import json
import math
from dataclasses import replace

import pytest

from flowsmith.evaluation.report import ReportError, dumps, evaluation_results, evaluation_table, ranked
from flowsmith.scored_flows import ScoredFlow, to_table
from tests.flows_for_tests import codec, some_flows

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


def _row(designer: str, prompt: int, sample: int, score: float | None, right: float, flow: int) -> ScoredFlow:
    failed = score is None
    return ScoredFlow(
        sample_id=f"{designer}/{prompt}/{sample}", prompt_id=f"p{prompt}", prompt="x", split="test",
        task=TASKS[prompt % 6], designer=designer, flow=json.dumps(some_flows(4)[flow].to_template()),
        flow_key=some_flows(4)[flow].key, base_flow="", seed=sample, renderer="1", weights="w",
        judges={} if failed else {"clip": float(prompt), "geneval": right}, score=score, seconds=0.5,
        status="failed" if failed else "ok", error="boom" if failed else None,
    )  # fmt: skip


def test_golden_table_of_two_designers() -> None:
    rows = [_row("a", p, s, p + 1.0, 1.0, 0) for p in range(6) for s in range(2)]
    rows += [_row("b", p, s, float(p), float(p < 3), 1 + s) for p in range(6) for s in range(2)]
    known = {some_flows(4)[0].structural_key, some_flows(4)[1].structural_key}
    results = evaluation_results(to_table(rows), codec(), known)
    a, b = results["designers"]["a"], results["designers"]["b"]
    assert a["score"]["mean"] == pytest.approx(3.5)
    assert b["score"]["mean"] == pytest.approx(2.5)
    # Paired: the difference is 1 for every prompt, so its interval has no width, whatever the prompts' spread.
    assert results["paired"]["a"]["b"] == {
        "mean": pytest.approx(1.0),
        "ci95": [pytest.approx(1.0), pytest.approx(1.0)],
    }
    assert results["win_rate"]["a"]["b"]["mean"] == 1.0
    assert results["win_rate"]["b"]["a"]["mean"] == 0.0
    assert a["geneval"] == dict.fromkeys((*TASKS, "overall"), 1.0)
    assert b["geneval"]["overall"] == pytest.approx(0.5)
    assert b["geneval"]["single_object"] == 1.0
    assert b["geneval"]["color_attr"] == 0.0
    assert (a["unique_flows"], a["novel_flows"]) == (1, 0)
    assert (b["unique_flows"], b["novel_flows"]) == (2, 1)
    assert a["tokens_per_flow"] == len(codec().encode(some_flows(4)[0]))
    assert a["judges"] == {"clip": pytest.approx(2.5)}
    assert (a["valid"], a["rendered"], a["seconds_per_image"]) == (1.0, 1.0, 0.5)
    lines = evaluation_table(results).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a", "b"]


def test_failing_does_not_pay() -> None:
    rows = [_row("a", p, 0, 1.0, 1.0, 0) for p in range(6)]
    rows += [_row("b", p, 0, None if p else 1.0, 1.0, 1) for p in range(6)] + [
        _row("c", p, 0, -2.0, 0.0, 2) for p in range(6)
    ]
    results = evaluation_results(to_table(rows), codec(), set())
    b = results["designers"]["b"]
    assert b["score"]["mean"] == pytest.approx((1.0 + 5 * -2.0) / 6)
    assert b["rendered"] == pytest.approx(1 / 6)
    assert b["geneval"]["overall"] == pytest.approx(1 / 6)


def test_an_invalid_flow_is_counted_and_not_raised() -> None:
    rows = [_row("a", p, 0, 1.0, 1.0, p % 2) for p in range(5)]
    broken = {"9": {"class_type": "KSampler", "inputs": {"steps": 0}}}
    rows[4] = replace(rows[4], flow=json.dumps(broken), flow_key="other")
    a = evaluation_results(to_table(rows), codec(), set())["designers"]["a"]
    assert a["valid"] == pytest.approx(4 / 5)
    assert (a["unique_flows"], a["rendered"]) == (2, 1.0)
    lengths = [len(codec().encode(flow)) for flow in some_flows(2)]
    assert a["tokens_per_flow"] == pytest.approx(sum(lengths) / 2)


def test_a_rendered_row_without_score_is_no_failure() -> None:
    rows = [_row("a", p, 0, 1.0, 1.0, 0) for p in range(3)]
    rows[1:] = [replace(row, score=None) for row in rows[1:]]
    with pytest.raises(ReportError, match="2 rendered rows have no score: list ImageMetrics with score="):
        evaluation_results(to_table(rows), codec(), set())


def test_designers_are_ranked_by_score() -> None:
    rows = [_row(d, 0, 0, score, 1.0, 0) for d, score in (("a", 0.5), ("b", 2.0), ("c", -1.0))]
    assert ranked(evaluation_results(to_table(rows), codec(), set())) == ["b", "a", "c"]


def test_json_is_strict() -> None:
    rows = [_row("a", 0, 0, 1.0, 1.0, 0), _row("b", 0, 0, 0.5, 1.0, 1)]
    results = evaluation_results(to_table(rows), codec(), set())
    again = json.loads(dumps(results | {"odd": math.nan}), parse_constant=lambda name: pytest.fail(name))
    assert again["odd"] is None
    assert again["designers"]["a"]["geneval"]["two_object"] is None
    assert again["designers"]["a"]["score"]["ci95"] == [None, None]
