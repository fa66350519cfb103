"""A run that was stopped and started again: what it keeps, what it makes again, what it refuses."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import FlowExecution, ImageMetrics, ScoredFlowWriter
from flowsmith.execution import RenderResult, RenderTask
from flowsmith.scored_flows import MixedVersionsError, ScoredFlowsError, read_scored_flows
from lightning_modules.design import DesignModule
from tests.callbacks.painting import (
    MODELS,
    Grey,
    PaintExecutor,
    StopAfter,
    Weighed,
    execution,
    paint,
    predict,
    seen,
)


class Moody:
    """Renders every third sample; the others fail for eight reasons in turn, of which two are one."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        for task in tasks:
            self.count += 1
            fault, fine = self.count // 3 % 8 % 7, self.count % 3 == 0
            yield RenderResult(
                task.sample_id, paint(task.flow) if fine else None, None if fine else f"fault {fault}", 0.1
            )


def test_a_restarted_run_renders_only_what_is_missing(tmp_path: Path) -> None:
    first, second = execution(failing="p0/1"), execution()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        predict(tmp_path, [first, ImageMetrics([Grey("grey")]), ScoredFlowWriter(), StopAfter(1)])
    assert not (tmp_path / "export").exists()
    predict(tmp_path, [second, ImageMetrics([Grey("grey")]), ScoredFlowWriter()])
    rows = read_scored_flows(tmp_path / "rows").to_pylist()
    assert len(rows) == len({row["sample_id"] for row in rows}) == 48
    # Ten prompts were written; of them only the two samples that failed are made again.
    assert len(seen(second)) == 2 * 2 * 2 + 2
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


def test_failed_rows_are_of_a_version_too(tmp_path: Path) -> None:
    chain = [ImageMetrics([Grey("grey")]), ScoredFlowWriter()]
    with pytest.raises(ScoredFlowsError, match="48 scored flows, 48 of them failed; 48 with: out of paint"):
        predict(tmp_path, [execution(failing="/"), *chain])
    assert not (tmp_path / "export").exists()
    with pytest.raises(MixedVersionsError, match="--fresh"):
        predict(tmp_path, [execution(version="2"), ImageMetrics([Grey("grey")]), ScoredFlowWriter()])
    assert read_scored_flows(tmp_path / "rows")["renderer"].unique().to_pylist() == ["1"]


def test_the_commonest_error_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(tmp_path, [execution(failing="a/p1"), ImageMetrics([Grey("grey")]), ScoredFlowWriter()])
    # p1, p10 and p11, two samples each; the error's first line alone
    assert "48 scored flows, 6 of them failed; 6 with: out of paint\n" in capsys.readouterr().out


def test_a_run_ends_in_an_error_if_more_failed_than_may(tmp_path: Path) -> None:
    """Of each two flows' 24 samples p1, p10 and p11 fail: 12 of 48."""
    chain = [ImageMetrics([Grey("grey")])]
    told = (
        r"48 scored flows, 12 of them failed; 12 with: out of paint. That is more than max_failed=0.2 allows"
    )
    with pytest.raises(ScoredFlowsError, match=told):
        predict(tmp_path, [execution(failing="/p1"), *chain, ScoredFlowWriter(max_failed=0.2)])
    assert not (tmp_path / "export").exists()
    # Started again with what is allowed, it renders again what failed, and nothing else.
    second = execution(failing="/p1")
    predict(tmp_path, [second, *chain, ScoredFlowWriter(max_failed=0.25)])
    assert len(seen(second)) == 12
    assert len(read_scored_flows(tmp_path / "export" / "scored_flows.parquet")) == 48
    with pytest.raises(ScoredFlowsError, match="max_failed=50: it is a share"):
        ScoredFlowWriter(max_failed=50)


def test_the_summary_names_the_commonest_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    renderer = execution()
    renderer.executor.render = Moody()  # type: ignore[method-assign]
    predict(tmp_path, [renderer, ImageMetrics([Grey("grey")]), ScoredFlowWriter(max_failed=0.9)])
    told = capsys.readouterr().out
    assert "48 scored flows, 32 of them failed; 8 with: fault 0; 4 with: fault " in told
    assert told.count("4 with: fault ") == 4
    assert "; and 2 other errors\n" in told


def test_a_score_needs_training_rows(tmp_path: Path) -> None:
    """The painted prompts are of the split test: nothing to fit a score on, and the rows stay."""
    with pytest.raises(
        ScoredFlowsError, match=r"there are 0 \(48 scored flows, 0 of them failed\); collect training"
    ):
        predict(tmp_path, [execution(), ImageMetrics([Grey("grey")]), ScoredFlowWriter({"grey": 1.0})])
    assert not (tmp_path / "export").exists()
    assert len(read_scored_flows(tmp_path / "rows")) == 48


def test_a_restart_renders_on_the_modules_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(DesignModule):
        @property
        def device(self) -> torch.device:
            return torch.device("cuda", 3)

    devices = []

    def made(models: Path, device: str, **rest: Any) -> PaintExecutor:
        devices.append(device)
        return PaintExecutor()

    monkeypatch.setattr("callbacks.flow_execution.Executor", made)
    predict(tmp_path, [execution(), ImageMetrics([Grey("grey")]), ScoredFlowWriter()])
    # All is there; the versions are asked for before the first batch.
    predict(
        tmp_path, [FlowExecution(MODELS), ImageMetrics([Grey("grey")]), ScoredFlowWriter()], kind=Elsewhere
    )
    assert devices == ["cuda:3"]
