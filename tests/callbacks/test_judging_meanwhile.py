"""Images are judged while others are rendered: the same rows as in turn, and a stop that leaves no thread."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks import FlowExecution, ImageMetrics, PictureKeeper, ScoredFlowWriter
from callbacks.candidate_callback import CallbackOrderError
from flowsmith.evaluation.kept_pictures import KeptPictures
from flowsmith.execution import RenderResult, RenderTask
from flowsmith.prompts import Prompt
from flowsmith.scored_flows import read_scored_flows
from tests.callbacks.painting import Grey, PaintExecutor, execution, paint, predict
from tests.flows_for_tests import some_flows


class Elsewhere(PaintExecutor):
    """A renderer that many processes may use; its last picture is only made once a judge has seen the first ones."""

    def __init__(self, judged: threading.Event | None = None) -> None:
        super().__init__(failing="a/p3/")
        self.judged, self.shares = judged, list[tuple[int, int]]()

    def take_share(self, rank: int, processes: int) -> None:
        self.shares.append((rank, processes))

    def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        waiting = list(tasks)
        for result in super().render(waiting):
            if self.judged is not None and result.sample_id == waiting[0].sample_id:  # painted last
                assert self.judged.wait(timeout=60), "nobody judged meanwhile"
            yield result


class Sees(Grey):
    """Tells when it is asked, and counts what it was shown."""

    def __init__(self, asked: threading.Event) -> None:
        super().__init__("grey")
        self.asked, self.shown = asked, 0

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        self.asked.set()
        self.shown += len(images)
        return super().judge(images, prompts)


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_scored_flows(folder / "export" / "scored_flows.parquet").to_pylist()
    return found


def test_judges_see_images_before_the_last_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callbacks.flow_execution._JUDGED_AT_ONCE", 8)
    asked = threading.Event()
    judge, renderer = Sees(asked), Elsewhere(asked)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    names = [str(k) for k in range(4)]  # 40 samples in a batch
    chain = [FlowExecution(executor=renderer), ImageMetrics([judge]), ScoredFlowWriter()]
    predict(tmp_path / "a", chain, names)
    assert renderer.shares == [(0, 1)]
    assert judge.shown == 12 * 2 * 4  # each once
    predict(tmp_path / "b", [execution(), ImageMetrics([Grey("grey")]), ScoredFlowWriter()], names)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_the_cpu_renders_and_judges_in_turn(tmp_path: Path) -> None:
    asked = threading.Event()
    threads: set[str] = set()

    class Here(PaintExecutor):
        def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
            threads.add(threading.current_thread().name)
            yield from super().render(tasks)

    callback = execution()
    callback.__dict__["executor"] = Here()
    predict(tmp_path, [callback, ImageMetrics([Sees(asked)]), ScoredFlowWriter()])
    assert threads == {threading.current_thread().name}


def test_a_judge_that_fails_leaves_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callbacks.flow_execution._JUDGED_AT_ONCE", 2)

    class Broken(Grey):
        def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
            raise ArithmeticError("no opinion")

    before = threading.active_count()
    chain = [FlowExecution(executor=Elsewhere()), ImageMetrics([Broken("grey")]), ScoredFlowWriter()]
    with pytest.raises(ArithmeticError, match="no opinion"):
        predict(tmp_path, chain)
    assert threading.active_count() == before


def test_a_black_picture_from_elsewhere_is_a_failure(tmp_path: Path) -> None:
    class Dark(Elsewhere):
        def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
            for result in super().render(tasks):
                if "p5" in result.sample_id and result.image is not None:
                    result.image = torch.zeros_like(result.image)
                yield result

    predict(
        tmp_path, [FlowExecution(executor=Dark()), ImageMetrics([Grey("grey")]), ScoredFlowWriter()], ["a"]
    )
    errors = {row["prompt_id"]: row["error"] for row in rows(tmp_path) if row["error"]}
    assert errors.keys() == {"p3", "p5"}
    assert "black in every pixel" in errors["p5"]


def test_every_picture_is_kept_before_its_row(tmp_path: Path) -> None:
    metrics = ImageMetrics([Grey("grey")])
    predict(tmp_path, [execution(failing="p3/"), metrics, PictureKeeper(), ScoredFlowWriter()])
    kept, flows = KeptPictures(tmp_path / "pictures"), some_flows(2)
    for row in rows(tmp_path):
        picture = kept.get(row["sample_id"])
        if row["status"] == "failed":
            assert picture is None
        else:
            assert picture is not None
            assert torch.equal(picture, paint(flows["ab".index(row["designer"])]))
    (tmp_path / "late").mkdir()
    with pytest.raises(CallbackOrderError, match="PictureKeeper is listed after ScoredFlowWriter"):
        predict(tmp_path / "late", [execution(), metrics, ScoredFlowWriter(), PictureKeeper()])
