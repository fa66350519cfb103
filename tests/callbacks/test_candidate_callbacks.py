"""The chain proposal, image, judges, rows, report; with a renderer that paints what it is told."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from callbacks import EvaluationReport, FlowExecution, GuidedSampling, ImageMetrics, ScoredFlowWriter
from callbacks.candidate_callback import CallbackOrderError
from datamodules.design_prompts import DesignPrompts
from flowsmith.candidates import CandidateBatch
from flowsmith.designers.protocol import candidate
from flowsmith.execution import RenderResult, RenderTask
from flowsmith.flows import Flow
from flowsmith.metrics import Judge
from flowsmith.metrics.score import JudgeScale, Score
from flowsmith.prompts import Prompt, Split, write_prompts
from flowsmith.scored_flows import MixedVersionsError, read_scored_flows
from lightning_modules.design import DesignModule
from tests.flows_for_tests import DOMAIN, some_flows

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PROMPTS = [Prompt(f"p{i}", f"prompt {i}", "test", TASKS[i % 6], {"x": 1}) for i in range(12)]


class PaintExecutor:
    """Renders a grey that follows from the flow; fails where told."""

    def __init__(self, failing: str = "", version: str = "1") -> None:
        self.version, self.weight_hashes = version, {"mini": "abc"}
        self.failing, self.seen = failing, list[str]()

    def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        for task in reversed(list(tasks)):  # results come in any order
            self.seen.append(task.sample_id)
            if self.failing and self.failing in task.sample_id:
                yield RenderResult(task.sample_id, None, "out of paint", 0.0)
            else:
                yield RenderResult(task.sample_id, paint(task.flow), None, 0.25)


def paint(flow: Flow) -> Tensor:
    return torch.full((3, 8, 8), int(flow.key[:2], 16), dtype=torch.uint8)


class Grey(Judge):
    """The picture's grey, 0 to 255."""

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        return torch.tensor([float(image.float().mean()) for image in images])


class Weighed(Grey):
    """The same, with weights that are only told apart."""

    def __init__(self, weight: float) -> None:
        network = nn.Linear(1, 1)
        nn.init.constant_(network.weight, weight)
        nn.init.zeros_(network.bias)
        super().__init__("grey", network=network)


class OneFlow:
    """Proposes one flow."""

    def __init__(self, name: str, flow: Flow) -> None:
        self.name, self.flow = name, flow

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Any]:
        return [candidate(self.name, p, i, self.flow, seed) for p in prompts for i in range(samples)]


def execution(**options: str) -> FlowExecution:
    callback = FlowExecution("nowhere")
    callback.__dict__["executor"] = PaintExecutor(**options)
    return callback


def predict(
    folder: Path, callbacks: Sequence[Callback], names: Sequence[str] = ("a", "b"), split: Split = "test"
) -> DesignModule:
    write_prompts(folder / "prompts.jsonl", [replace(prompt, split=split) for prompt in PROMPTS])
    flows = some_flows(len(names))
    module = DesignModule([OneFlow(n, f) for n, f in zip(names, flows, strict=True)], samples=2)
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=list(callbacks), default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    data = DesignPrompts(str(folder / "prompts.jsonl"), [split], batch=5)
    trainer.predict(module, datamodule=data, return_predictions=False)
    return module


def test_rows_hold_what_was_rendered_and_judged(tmp_path: Path) -> None:
    Score({"grey": JudgeScale(100.0, 50.0)}).save(tmp_path / "score.json")
    metrics = ImageMetrics([Grey("grey")], score=str(tmp_path / "score.json"))
    predict(tmp_path, [execution(), metrics, ScoredFlowWriter()])
    rows = read_scored_flows(tmp_path / "export" / "scored_flows.parquet").to_pylist()
    assert len(rows) == 12 * 2 * 2
    for row in rows:
        flow = some_flows(2)["ab".index(row["designer"])]
        grey = int(flow.key[:2], 16)
        assert row["flow_key"] == flow.key
        assert (row["judge_grey"], row["score"]) == (grey, pytest.approx((grey - 100) / 50))
        assert (row["status"], row["renderer"], row["seconds"]) == ("ok", "1", 0.25)


def test_a_restarted_run_renders_only_what_is_missing(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
            if rest[2] == 1:
                raise KeyboardInterrupt

    first, second = execution(failing="p0/1"), execution()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        predict(tmp_path, [first, ImageMetrics([Grey("grey")]), ScoredFlowWriter(), Stop()])
    assert not (tmp_path / "export").exists()
    predict(tmp_path, [second, ImageMetrics([Grey("grey")]), ScoredFlowWriter()])
    rows = read_scored_flows(tmp_path / "rows").to_pylist()
    assert len(rows) == len({row["sample_id"] for row in rows}) == 48
    # Ten prompts were written; of them only the two samples that failed are made again.
    assert len(second.executor.seen) == 2 * 2 * 2 + 2  # type: ignore[attr-defined]
    assert {row["status"] for row in rows} == {"ok"}


def test_rows_of_another_renderer_are_refused(tmp_path: Path) -> None:
    predict(tmp_path, [execution(), ImageMetrics([Grey("grey")]), ScoredFlowWriter()])
    with pytest.raises(MixedVersionsError, match="--fresh"):
        predict(tmp_path, [execution(version="2"), ImageMetrics([Grey("grey")]), ScoredFlowWriter()])


def test_rows_of_other_judges_are_refused(tmp_path: Path) -> None:
    predict(tmp_path, [execution(), ImageMetrics([Weighed(1.0)]), ScoredFlowWriter()])
    predict(tmp_path, [execution(), ImageMetrics([Weighed(1.0)]), ScoredFlowWriter()])
    with pytest.raises(MixedVersionsError, match="--fresh"):
        predict(tmp_path, [execution(), ImageMetrics([Weighed(1.5)]), ScoredFlowWriter()])


def test_the_score_is_fitted_on_training_rows(tmp_path: Path) -> None:
    callbacks = [execution(failing="a/p1/"), ImageMetrics([Grey("grey")]), ScoredFlowWriter({"grey": 2.0})]
    predict(tmp_path, callbacks, split="train")
    rows = read_scored_flows(tmp_path / "export" / "scored_flows.parquet").to_pylist()
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["sample_id"] for row in failed} == {"a/p1/0", "a/p1/1"}
    assert all(row["score"] is None and row["error"] == "out of paint" for row in failed)
    scores = torch.tensor([row["score"] for row in rows if row["status"] == "ok"])
    assert float(scores.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(scores.std()) == pytest.approx(2.0, rel=1e-5)


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


def test_the_report_compares_all_designers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Score({"grey": JudgeScale(100.0, 50.0)}).save(tmp_path / "score.json")
    train = tmp_path / "train"
    train.mkdir()
    predict(
        train, [execution(), ImageMetrics([Grey("grey")]), ScoredFlowWriter({"grey": 1.0})], split="train"
    )
    known = str(train / "export" / "scored_flows.parquet")
    metrics = ImageMetrics([Grey("grey")], score=str(tmp_path / "score.json"))
    report = EvaluationReport(known, str(DOMAIN), pictures=2)
    predict(tmp_path, [execution(), metrics, ScoredFlowWriter(), report], names=("a", "b", "c"))
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["designers"]) == {"a", "b", "c"}
    assert (results["designers"]["a"]["novel_flows"], results["designers"]["c"]["novel_flows"]) == (0, 1)
    assert (results["prompts"], results["samples_per_prompt"]) == (12, 2)
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("| a ") == 1
