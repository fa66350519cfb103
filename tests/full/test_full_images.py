"""full/collect.yaml and full/evaluate.yaml, run as they are on tiny random models of the published formats."""

import json
from pathlib import Path
from typing import Any

import pytest

from flowsmith.evaluation.kept_pictures import KeptPictures
from flowsmith.metrics.published.table import JUDGES
from flowsmith.metrics.score import Score
from flowsmith.scored_flows import JUDGE_PREFIX, read_scored_flows
from tests.full.installation import FILES, LORA, TEXTS, UPSCALER, write_exports, write_installation
from tests.processes import ended, group, train

SCORE = {"aesthetic", "image_reward", "hps_v21", "pick_score"}
HELD_OUT = {"collect": {"clip_score"}, "evaluate": {"clip_score", "hps_v2", "geneval"}}


def run(folder: Path, config: str, samples: int, processes: int = 1) -> list[dict[str, Any]]:
    """Run a config on the CPU; return the rows that it exports."""
    words = ["--config", f"full/{config}.yaml", "--model.samples", str(samples)]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", str(processes)]
    environments: list[dict[str, str]] = group(processes) if processes > 1 else [{}]
    ranks = [train(folder, *words, environment=each, script="evaluate.py") for each in environments]
    codes = [ended(rank, 600) for rank in ranks]
    told = "\n".join((folder / f"{rank}.log").read_text() for rank in range(processes))
    assert codes == [0] * processes, told
    assert "0 of them failed" in told
    rows: list[dict[str, Any]] = read_scored_flows(
        folder / "runs" / f"full-{config}" / "export" / "scored_flows.parquet"
    ).to_pylist()
    return rows


def judges_of(row: dict[str, Any]) -> dict[str, float]:
    return {
        name.removeprefix(JUDGE_PREFIX): value
        for name, value in row.items()
        if name.startswith(JUDGE_PREFIX) and value is not None
    }


def assert_judged(rows: list[dict[str, Any]], config: str, score: Score) -> None:
    """Check that every row holds what its judges said, and the score that follows."""
    assert score.judges.keys() == SCORE
    assert SCORE | HELD_OUT[config] <= JUDGES.keys()
    for row in rows:
        assert row["status"] == "ok"
        judged = judges_of(row)
        assert judged.keys() == SCORE | HELD_OUT[config]
        assert row["score"] == pytest.approx(score(judged), abs=1e-4)


def assert_collected(folder: Path, family: str, samples: int, processes: int = 1) -> list[dict[str, Any]]:
    rows = run(write_installation(folder, family), "collect", samples, processes)
    assert len(rows) == samples * len(TEXTS)
    assert {row["prompt"] for row in rows} == set(TEXTS)
    assert len({row["flow_key"] for row in rows}) > 2
    assert {row["base_flow"] for row in rows} == {"default", "enlarged"}
    assert all(any(name in row["flow"] for row in rows) for name in (FILES[family], LORA, UPSCALER))
    assert_judged(rows, "collect", Score.load(folder / "runs/full-collect/export/score.json"))
    return rows


def test_collect(tmp_path: Path) -> None:
    assert_collected(tmp_path, "sdxl", samples=1)


@pytest.mark.slow
@pytest.mark.parametrize("family", FILES)
def test_collect_then_evaluate(tmp_path: Path, family: str) -> None:
    assert_collected(tmp_path, family, samples=2)
    write_exports(tmp_path)
    rows = run(tmp_path, "evaluate", samples=1)
    designers = {"default flow", "best fixed flow", "surrogate arg-max"}
    designers |= {"vocabulary", "GRPO", "GRPO w=1.5", "GRPO w=2"}
    assert len(rows) == 2 * len(designers)
    assert {row["task"] for row in rows} == {"single_object", "counting"}
    assert_judged(rows, "evaluate", Score.load(tmp_path / "runs/full-collect/export/score.json"))

    # The pictures that are kept, judged by judges of one's own.
    kept, weights = KeptPictures(tmp_path / "runs/full-evaluate/pictures"), tmp_path / "models" / "judges"
    for name in ("hps_v21", "image_reward"):
        judge = JUDGES[name].load(weights, "float32")
        for row in rows[::5]:
            picture = kept.get(row["sample_id"])
            assert picture is not None
            expected = float(judge.judge([picture], [row["prompt"]]))
            assert row[JUDGE_PREFIX + name] == pytest.approx(expected, abs=1e-4)

    results = json.loads((tmp_path / "runs/full-evaluate/results.json").read_text())
    assert results["prompts"] == 2
    told = (tmp_path / "0.log").read_text()
    assert all(f"| {name} " in told for name in designers)
    assert "wins (hps_v2)" in told


@pytest.mark.slow
def test_two_processes_collect_what_one_does(tmp_path: Path) -> None:
    one = assert_collected(tmp_path / "one", "sdxl", samples=2)
    two = assert_collected(tmp_path / "two", "sdxl", samples=2, processes=2)
    assert [row["sample_id"] for row in one] == [row["sample_id"] for row in two]
    assert [row["flow"] for row in one] == [row["flow"] for row in two]
    for mine, other in zip(one, two, strict=True):
        assert judges_of(mine) == pytest.approx(
            judges_of(other), rel=0.02, abs=0.02
        )  # half precision, last bits
