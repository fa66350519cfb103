"""What is missing or wrong is told before anything is rendered."""

from pathlib import Path

import pytest

from callbacks import (
    EvaluationReport,
    FlowExecution,
    GuidanceCurve,
    GuidedSampling,
    ImageMetrics,
    ScoredFlowWriter,
)
from callbacks.candidate_callback import CallbackOrderError
from flowsmith.candidates import CandidateBatch
from flowsmith.execution import ExecutionError
from flowsmith.flows import DomainError
from flowsmith.metrics.score import JudgeScale, Score, ScoreError
from flowsmith.scored_flows import ScoredFlowsError
from lightning_modules.design import DesignModule
from tests.callbacks.painting import PROMPTS, Grey, OneFlow, execution, paint, predict, seen
from tests.flows_for_tests import DOMAIN, some_flows


def test_each_says_what_it_misses(tmp_path: Path) -> None:
    bare = DesignModule([])
    with pytest.raises(CallbackOrderError, match=r"set model\.policy"):
        GuidedSampling().fill(bare, CandidateBatch(PROMPTS[:1]))
    with pytest.raises(CallbackOrderError, match="list GuidedSampling before it, or name designers"):
        execution().fill(bare, CandidateBatch(PROMPTS[:1]))
    waiting = CandidateBatch(PROMPTS[:1], OneFlow("a", some_flows(1)[0]).propose(PROMPTS[:1], 1, 0))
    with pytest.raises(CallbackOrderError, match="list FlowExecution before it"):
        ImageMetrics([Grey("grey")]).fill(bare, waiting)
    with pytest.raises(CallbackOrderError, match="list FlowExecution before it"):
        predict(tmp_path, [ScoredFlowWriter()])
    waiting.candidates[0].image = paint(some_flows(1)[0])
    with pytest.raises(CallbackOrderError, match="list ImageMetrics with score= before it"):
        GuidanceCurve().fill(bare, waiting)


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "loras alone"])
def test_a_folder_without_checkpoints_is_refused(tmp_path: Path, there: str) -> None:
    if there != "nothing":
        (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    if there == "loras alone":
        (tmp_path / "models" / "loras").mkdir()
        (tmp_path / "models" / "loras" / "x.safetensors").touch()
    with pytest.raises(ExecutionError, match=r"models=.*models: holds no checkpoints"):
        predict(
            tmp_path, [FlowExecution(str(tmp_path / "models")), ImageMetrics([Grey("g")]), ScoredFlowWriter()]
        )


def test_rows_need_judges_before(tmp_path: Path) -> None:
    renderer, metrics = execution(), ImageMetrics([Grey("grey")])
    for callbacks in ([renderer, ScoredFlowWriter()], [renderer, ScoredFlowWriter(), metrics]):
        with pytest.raises(CallbackOrderError, match="list ImageMetrics before it"):
            predict(tmp_path, callbacks)
    with pytest.raises(CallbackOrderError, match="list FlowExecution before it"):
        predict(tmp_path, [metrics, ScoredFlowWriter(), renderer])
    with pytest.raises(
        ScoreError, match="score_weights weighs blue, which no judge here gives; the judges are: grey"
    ):
        predict(tmp_path, [renderer, metrics, ScoredFlowWriter({"blue": 1.0, "grey": 1.0})])
    assert seen(renderer) == []


def test_a_score_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    renderer = execution()
    with pytest.raises(ScoreError, match=r"score=.*missing\.json: no readable score"):
        predict(tmp_path, [renderer, ImageMetrics([Grey("grey")], score=str(tmp_path / "missing.json"))])
    Score({"blue": JudgeScale(0.0, 1.0)}).save(tmp_path / "score.json")
    with pytest.raises(ScoreError, match=r"score\.json weighs blue, which no judge here gives"):
        predict(tmp_path, [renderer, ImageMetrics([Grey("grey")], score=str(tmp_path / "score.json"))])
    assert seen(renderer) == []


def test_a_report_that_cannot_be_made_is_refused(tmp_path: Path, known_rows: str) -> None:
    Score({"grey": JudgeScale(100.0, 50.0)}).save(tmp_path / "score.json")
    renderer, score = execution(), str(tmp_path / "score.json")
    scored, unscored = ImageMetrics([Grey("grey")], score=score), ImageMetrics([Grey("grey")])
    report = EvaluationReport(known_rows, str(DOMAIN))
    for callbacks in ([renderer, scored, report], [renderer, scored, report, ScoredFlowWriter()]):
        with pytest.raises(CallbackOrderError, match="list ScoredFlowWriter before it"):
            predict(tmp_path, callbacks)
    with pytest.raises(CallbackOrderError, match="no row would have one: give ImageMetrics its score="):
        predict(tmp_path, [renderer, unscored, ScoredFlowWriter(), report])
    chain = [renderer, scored, ScoredFlowWriter()]
    with pytest.raises(ScoredFlowsError, match="no parquet file is there"):
        predict(tmp_path, [*chain, EvaluationReport(str(tmp_path / "none.parquet"), str(DOMAIN))])
    with pytest.raises(DomainError):
        predict(tmp_path, [*chain, EvaluationReport(known_rows, str(tmp_path / "none.yaml"))])
    assert seen(renderer) == []
