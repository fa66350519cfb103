"""The comparison of designers, and the sheets of pictures and flows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback
from torch import Tensor

from callbacks import EvaluationReport, ImageMetrics, ScoredFlowWriter
from callbacks.candidate_callback import CallbackOrderError
from callbacks.scored_flow_writer import hash_of_weights
from flowsmith.candidates import Candidate
from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.kept_pictures import KeptPictures
from flowsmith.metrics.score import JudgeScale, Score
from flowsmith.prompts import Prompt
from flowsmith.scored_flows import ScoredFlow, to_table, write_scored_flows
from tests.callbacks.painting import Grey, StopAfter, execution, grey, paint, predict, seen
from tests.flows_for_tests import DOMAIN, some_flows


def chain(folder: Path, known: str, **options: Any) -> list[Callback]:
    """Return what an evaluation lists."""
    Score({"grey": JudgeScale(100.0, 50.0)}).save(folder / "score.json")
    metrics = ImageMetrics([Grey("grey")], score=str(folder / "score.json"))
    return [
        execution(**options),
        metrics,
        ScoredFlowWriter(),
        EvaluationReport(known, str(DOMAIN), pictures=7),
    ]


def evaluate(folder: Path, callbacks: Sequence[Callback]) -> dict[str, Any]:
    predict(folder, callbacks, names=("a", "b", "c"))
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def test_the_report_compares_all_designers(
    tmp_path: Path, known_rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = evaluate(tmp_path, chain(tmp_path, known_rows))
    assert set(results["designers"]) == {"a", "b", "c"}
    assert [results["designers"][d]["novel_flows"] for d in "abc"] == [0, 0, 1]
    assert (results["prompts"], results["samples_per_prompt"]) == (12, 2)
    assert results["seeds"] == {"designers": 0, "sampling": [], "images_per_prompt": 2}
    assert capsys.readouterr().out.count("| a ") == 1


def dense_rows(folder: Path, version: str = "1", name: str = "p") -> Path:
    """Write a dense block of 8 prompts, three flows, each the lightest for every third prompt, and two seeds."""
    weights = hash_of_weights({"mini": "abc"}, [])
    rows = [
        ScoredFlow.from_candidate(
            Candidate(
                f"dense/{p}/{f}/{s}", Prompt(f"{name}{p}", "x", "test"), flow, "dense", s, score=77.0,
                judges={"grey": 150.0 if p % 3 == f else 50.0 - f},
            ),
            renderer=version, weights=weights,
        )
        for p in range(8)
        for f, flow in enumerate(some_flows(3))
        for s in range(2)
    ]  # fmt: skip
    write_scored_flows(folder / "dense.parquet", to_table(rows))
    return folder / "dense.parquet"


class Liked(Grey):
    """Likes the dark; a judge that no score knows."""

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        return -super().judge(images, prompts)


def extended(folder: Path, known: str, **more: Any) -> list[Callback]:
    """Return the chain with a judge more, and a report with more options."""
    callbacks = chain(folder, known)
    callbacks[1] = ImageMetrics([Grey("grey"), Liked("liked")], score=str(folder / "score.json"))
    callbacks[-1] = EvaluationReport(known, str(DOMAIN), pictures=7, **more)
    return callbacks


def test_ceiling_and_held_out_preference(
    tmp_path: Path, known_rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = dense_rows(tmp_path)
    results = evaluate(
        tmp_path, extended(tmp_path, known_rows, dense=str(dense), held_out_preference="liked")
    )
    # The block's judge on the run's scale, (150 - 100) / 50, whatever score its rows had.
    assert results["oracle"]["score"] == {"mean": 1.0, "ci95": [1.0, 1.0]}
    assert (results["oracle"]["prompts"], results["prompts"], results["oracle"]["chosen_on"]) == (8, 12, 1)
    for name, flow in zip("abc", some_flows(3), strict=True):
        assert results["oracle"]["paired"][name]["mean"] == pytest.approx(1 - (grey(flow) - 100) / 50)
    for a in "abc":
        for b in set("abc") - {a}:
            assert results["preference"]["win_rate"][a][b]["mean"] == results["win_rate"][b][a]["mean"]
    told = capsys.readouterr().out
    assert "| oracle (dense block) | +1.000 (+1.000 to +1.000) | -" in told
    assert "wins (liked)" in told
    assert "the 8 prompts (of 12) that the block has, chosen on 1 of 2 seeds" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out_preference": "grey"}, "'grey': the score weighs it, so it is not held out"),
        ({"held_out_preference": "nobody"}, "no judge of that name; .* name one of grey, liked"),
        ({"dense": "none.parquet"}, "none.parquet: no parquet file is there"),
        ({"dense": ("2", "p")}, "rendered by version 2 with weights .*, this run renders by version 1"),
        ({"dense": ("1", "q")}, "none of its prompts is evaluated"),
    ],
)
def test_what_cannot_be_compared_is_told_before_anything_is_rendered(
    tmp_path: Path, known_rows: str, options: dict[str, Any], message: str
) -> None:
    if isinstance(options.get("dense"), tuple):
        options = {"dense": str(dense_rows(tmp_path, *options["dense"]))}
    callbacks = extended(tmp_path, known_rows, **options)
    with pytest.raises(FlowsmithError, match=message):
        evaluate(tmp_path, callbacks)
    assert seen(callbacks[0]) == []  # type: ignore[arg-type]


def test_a_ceiling_needs_a_score_that_stands_before(tmp_path: Path, known_rows: str) -> None:
    callbacks = extended(tmp_path, known_rows, dense=str(dense_rows(tmp_path)))
    callbacks[2] = ScoredFlowWriter({"grey": 1.0})
    with pytest.raises(
        CallbackOrderError, match="a score fitted at the end is not; give ImageMetrics the score="
    ):
        evaluate(tmp_path, callbacks)
    callbacks[-1] = EvaluationReport(known_rows, str(DOMAIN), held_out_preference="grey")
    with pytest.raises(CallbackOrderError, match="the score weighs it"):
        evaluate(tmp_path, callbacks)


def test_the_first_prompts_pictures_are_kept(tmp_path: Path, known_rows: str) -> None:
    evaluate(tmp_path, chain(tmp_path, known_rows, failing="b/p3/0"))
    kept = KeptPictures(tmp_path / "pictures")
    for number, name in enumerate("abc"):
        for prompt in range(12):
            for sample in range(2):
                picture = kept.get(f"{name}/p{prompt}/{sample}")
                if prompt < 7 and (name, prompt, sample) != ("b", 3, 0):
                    assert picture is not None
                    assert picture.equal(paint(some_flows(3)[number]))
                else:
                    assert picture is None


def test_a_stop_changes_no_sheet(tmp_path: Path, known_rows: str) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    expected = evaluate(whole, chain(whole, known_rows))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        evaluate(stopped, [*chain(stopped, known_rows), StopAfter(0)])
    # A kill between row and picture leaves a row without its picture: it alone is rendered again.
    KeptPictures(stopped / "pictures").path("c/p0/0").unlink()
    again = chain(stopped, known_rows)
    assert evaluate(stopped, again) == expected
    assert sorted(seen(again[0])) == sorted(  # type: ignore[arg-type]
        ["c/p0/0", *(f"{d}/p{p}/{s}" for d in "abc" for p in range(5, 12) for s in range(2))]
    )
    for sheet in ("samples.png", "flows.png"):
        assert (stopped / sheet).read_bytes() == (whole / sheet).read_bytes()
