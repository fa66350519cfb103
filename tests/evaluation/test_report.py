import json
import math
from dataclasses import replace

import numpy as np
import pytest

from flowsmith.evaluation.dense_block import dense_block
from flowsmith.evaluation.report import ReportError, evaluation_results
from flowsmith.evaluation.report_table import evaluation_table, oracle_note, ranked
from flowsmith.evaluation.strict_json import dumps
from flowsmith.scored_flows import ScoredFlow, to_table
from tests.evaluation.worlds import rows_of
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


def split(line: str) -> list[str]:
    """Return the cells of a line of the table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


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
    assert (a["unique_per_sample"], b["unique_per_sample"]) == (1 / 12, 2 / 12)
    assert (a["effective_flows"], b["effective_flows"]) == (1, pytest.approx(2))
    assert (a["differing_within_prompt"], b["differing_within_prompt"]) == (0, 1)
    assert (a["geneval_abstained"], b["geneval_abstained"]) == (0, 0)
    assert a["tokens_per_flow"] == len(codec().encode(some_flows(4)[0]))
    assert a["judges"] == {"clip": pytest.approx(2.5)}
    assert (a["valid"], a["rendered"], a["seconds_per_image"]) == (1.0, 1.0, 0.5)
    lines = evaluation_table(results).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a", "b"]
    cells = [dict(zip(split(lines[0]), split(line), strict=True)) for line in lines[2:]]
    assert [cell["wins"] for cell in cells] == ["100 %", "0 %"]
    assert [cell["per sample"] for cell in cells] == ["0.08", "0.17"]
    assert [cell["in prompt"] for cell in cells] == ["0 %", "100 %"]
    assert [cell["abstained"] for cell in cells] == ["0 %", "0 %"]
    assert "preference" not in results
    assert "oracle" not in results


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


def test_win_rates_by_a_held_out_preference_stand_beside_the_scores() -> None:
    """The score prefers a everywhere, the preference b on four prompts of six; what failed is least preferred."""
    rows = [_row("a", p, 0, 2.0, 1.0, 0) for p in range(6)] + [_row("b", p, 0, 1.0, 1.0, 1) for p in range(6)]
    liked = {"a": 0.5, "b": 0.6}
    rows = [replace(row, judges={**row.judges, "liked": liked[row.designer]}) for row in rows]
    rows[6] = replace(rows[6], judges={}, score=None, status="failed", error="boom")
    rows[7] = replace(rows[7], judges={**rows[7].judges, "liked": 0.4})
    results = evaluation_results(to_table(rows), codec(), set(), preference="liked")
    assert results["win_rate"]["a"]["b"]["mean"] == 1.0
    assert results["preference"]["judge"] == "liked"
    assert results["preference"]["win_rate"]["b"]["a"]["mean"] == pytest.approx(4 / 6)
    assert results["preference"]["win_rate"]["a"]["b"]["mean"] == pytest.approx(2 / 6)
    assert results["designers"]["a"]["judges"]["liked"] == pytest.approx(0.5)
    lines = evaluation_table(results).splitlines()
    cells = dict(zip(split(lines[0]), split(lines[2]), strict=True))
    assert (cells["designer"], cells["wins (liked)"], cells["wins (score)"]) == ("a", "33 %", "100 %")


def test_a_preference_that_did_not_judge_all_is_told() -> None:
    rows = [_row("a", p, 0, 2.0, 1.0, 0) for p in range(3)]
    with pytest.raises(
        ReportError, match=r"held_out_preference='liked' has not judged .* these rows have clip, geneval"
    ):
        evaluation_results(to_table(rows), codec(), set(), preference="liked")
    some = [replace(row, judges={**row.judges, "liked": 0.5}) for row in rows[:2]]
    with pytest.raises(ReportError, match="held_out_preference='liked' has not judged every rendered row"):
        evaluation_results(to_table([*some, rows[2]]), codec(), set(), preference="liked")


def test_abstentions_are_told_and_no_verdict() -> None:
    rows = [_row("a", p, s, 1.0, 1.0, 0) for p in range(6) for s in range(2)]
    silent = [
        replace(row, judges={"clip": 1.0}) if row.sample_id in ("a/0/0", "a/1/0", "a/1/1") else row
        for row in rows
    ]
    silent[11] = replace(silent[11], judges={}, score=None, status="failed", error="boom")
    a = evaluation_results(to_table(silent), codec(), set())["designers"]["a"]
    assert a["geneval_abstained"] == pytest.approx(3 / 11)  # of the pictures that there are
    assert a["geneval"]["single_object"] == 1.0
    assert a["geneval"]["two_object"] is None
    assert a["geneval"]["color_attr"] == 0.5
    none = [replace(row, task="") for row in rows]
    assert math.isnan(
        evaluation_results(to_table(none), codec(), set())["designers"]["a"]["geneval_abstained"]
    )


def test_the_oracle_of_a_dense_block_is_the_ceiling() -> None:
    """Flow p is the best of prompt p by 2, on every seed; the designer scores 1 to 4."""
    prompts = [f"p{p}" for p in range(4)]
    scores = np.zeros((4, 4, 4)) + 2 * np.eye(4)[:, :, None]
    block = dense_block(to_table(rows_of(scores, some_flows(4), [*prompts[:3], "q"], ["counting"] * 4)))
    rows = [_row("a", p, s, 1.0 + p, 1.0, 0) for p in range(4) for s in range(2)]
    results = evaluation_results(to_table(rows), codec(), set(), dense=block)
    # Of three differences 1, 0, -1 more than 2.5 % of resamples are of one alone; then widened by sqrt(3 / 2).
    wide = [pytest.approx(-(1.5**0.5)), pytest.approx(1.5**0.5)]
    assert results["oracle"] == {
        "score": {"mean": pytest.approx(2.0), "ci95": [pytest.approx(2.0), pytest.approx(2.0)]},
        "paired": {"a": {"mean": pytest.approx(2.0 - 2.0), "ci95": wide}},
        "prompts": 3, "flows": 4, "seeds": 4, "chosen_on": 2,
    }  # fmt: skip
    lines = evaluation_table(results).splitlines()
    assert split(lines[2])[:2] == ["oracle (dense block)", "+2.000 (+2.000 to +2.000)"]
    assert set(split(lines[2])[2:]) == {"-"}
    assert split(lines[3])[0] == "a"
    assert ranked(results) == ["a"]
    assert oracle_note(results).startswith(
        "oracle (dense block): the best of 4 flows for each of the 3 prompts (of 4) that the block has, chosen on 2 of"
    )


def test_the_oracles_luck_is_not_counted() -> None:
    noise = np.random.default_rng(0).normal(size=(40, 4, 4))
    prompts = [f"p{p}" for p in range(40)]
    block = dense_block(to_table(rows_of(noise, some_flows(4), prompts, ["counting"] * 40)))
    rows = [_row("a", p, 0, 0.0, 1.0, 0) for p in range(40)]
    oracle = evaluation_results(to_table(rows), codec(), set(), dense=block)["oracle"]
    low, high = oracle["score"]["ci95"]
    assert low < 0 < high
    assert abs(oracle["score"]["mean"]) < 0.2 < noise.mean(2).max(1).mean()
