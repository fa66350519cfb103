"""The comparison of designers, and the sheets of pictures and flows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback

from callbacks import EvaluationReport, ImageMetrics, ScoredFlowWriter
from flowsmith.evaluation.kept_pictures import KeptPictures
from flowsmith.metrics.score import JudgeScale, Score
from tests.callbacks.painting import Grey, StopAfter, execution, paint, predict, seen
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
