"""The chain proposal, image, judges, rows; with a renderer that paints what it is told."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from callbacks import ImageMetrics, ScoredFlowWriter
from flowsmith.metrics.score import JudgeScale, Score
from flowsmith.prompts import Prompt
from flowsmith.scored_flows import read_scored_flows
from tests.callbacks.painting import Grey, execution, grey, predict
from tests.flows_for_tests import some_flows


def test_rows_hold_what_was_rendered_and_judged(tmp_path: Path) -> None:
    Score({"grey": JudgeScale(100.0, 50.0)}).save(tmp_path / "score.json")
    metrics = ImageMetrics([Grey("grey")], score=str(tmp_path / "score.json"))
    predict(tmp_path, [execution(), metrics, ScoredFlowWriter()])
    rows = read_scored_flows(tmp_path / "export" / "scored_flows.parquet").to_pylist()
    assert len(rows) == 12 * 2 * 2
    for row in rows:
        flow = some_flows(2)["ab".index(row["designer"])]
        assert row["flow_key"] == flow.key
        assert (row["judge_grey"], row["score"]) == (grey(flow), pytest.approx((grey(flow) - 100) / 50))
        assert (row["status"], row["renderer"], row["seconds"]) == ("ok", "1", 0.25)


def test_the_score_is_fitted_on_training_rows(tmp_path: Path) -> None:
    callbacks = [execution(failing="a/p1/"), ImageMetrics([Grey("grey")]), ScoredFlowWriter({"grey": 2.0})]
    predict(tmp_path, callbacks, split="train")
    rows = read_scored_flows(tmp_path / "export" / "scored_flows.parquet").to_pylist()
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["sample_id"] for row in failed} == {"a/p1/0", "a/p1/1"}
    assert all(row["score"] is None and row["error"] == "out of paint\nin the blue pot" for row in failed)
    scores = torch.tensor([row["score"] for row in rows if row["status"] == "ok"])
    assert float(scores.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(scores.std()) == pytest.approx(2.0, rel=1e-5)


class Odd(Grey):
    """Not finite for some samples."""

    def __init__(self, name: str, value: float, prompts: str) -> None:
        super().__init__(name)
        self.value, self.odd = value, prompts

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        odd = torch.tensor([isinstance(p, Prompt) and p.id == self.odd for p in prompts])
        return torch.where(odd, self.value, super().judge(images, prompts))


@pytest.mark.parametrize("fitted", [False, True])
def test_a_value_that_is_none_costs_its_own_sample_alone(tmp_path: Path, fitted: bool) -> None:
    Score({"grey": JudgeScale(100.0, 50.0)}).save(tmp_path / "score.json")
    judges = [
        Odd("grey", float("nan"), "p1"),
        Odd("held out", float("inf"), "p2"),
        Odd("abstains", float("nan"), "p3"),
    ]
    metrics = ImageMetrics([*judges], score=None if fitted else str(tmp_path / "score.json"))
    writer = ScoredFlowWriter({"grey": 1.0} if fitted else None)
    predict(tmp_path, [execution(), metrics, writer], split="train")
    rows = read_scored_flows(tmp_path / "export" / "scored_flows.parquet").to_pylist()
    errors = {row["prompt_id"]: row["error"] for row in rows}
    assert len(rows) == 12 * 2 * 2
    assert {p: e for p, e in errors.items() if e} == {"p1": "grey=nan", "p2": "held out=inf"}
    for row in rows:
        failed = row["prompt_id"] in ("p1", "p2")
        assert (row["status"] == "failed") == (row["score"] is None) == (row["judge_grey"] is None) == failed
        assert (row["judge_abstains"] is None) == (failed or row["prompt_id"] == "p3")
    assert metrics.totals()["rendered", "a"] == (22.0 if fitted else 20.0, 24)
