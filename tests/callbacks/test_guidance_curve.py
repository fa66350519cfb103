from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from callbacks import GuidanceCurve
from flowsmith.candidates import Candidate, CandidateBatch
from flowsmith.evaluation.statistics import mean_interval
from flowsmith.prompts import Prompt
from tests.callbacks.painting import paint
from tests.flows_for_tests import some_flows

SCORES = {0.0: {"p0": [1.0, 3.0], "p1": [0.0, 0.0]}, 2.0: {"p0": [4.0], "p1": [5.0, 7.0]}}


def batch() -> CandidateBatch:
    flow = some_flows(1)[0]
    candidates = [
        Candidate(f"{w}/{p}/{i}", Prompt(p, p), flow, "guided", 0, guidance=w, image=paint(flow), score=score)
        for w, prompts in SCORES.items()
        for p, scores in prompts.items()
        for i, score in enumerate(scores)
    ]
    failed = Candidate("2.0/p0/1", Prompt("p0", "p0"), flow, "guided", 0, guidance=2.0, error="boom")
    other = Candidate("fixed/p0/0", Prompt("p0", "p0"), flow, "fixed", 0, image=paint(flow), score=99.0)
    return CandidateBatch([], [*candidates, failed, other])


def test_curve_goes_through_the_means_over_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, Figure, int]] = []
    writer = SimpleNamespace(add_figure=lambda *told: drawn.append(told))
    monkeypatch.setattr("callbacks.guidance_curve.tensorboard_of", lambda trainer: writer)
    trainer: Any = SimpleNamespace(global_step=42)
    module: Any = None
    curve = GuidanceCurve()
    for _ in range(2):  # the second epoch knows nothing of the first
        curve.on_validation_epoch_start(trainer, module)
        curve.fill(module, batch())
        curve.on_validation_epoch_end(trainer, module)
    name, figure, step = drawn[1]
    assert (name, step) == ("val/score_by_guidance", 42)
    line, bars = figure.axes[0].containers[0][0], figure.axes[0].containers[0][2][0]
    # Prompts weigh the same, however many samples they have: (2 + 0) / 2 and (4 + 6) / 2.
    assert line.get_xydata().tolist() == [[0.0, 1.0], [2.0, 5.0]]
    intervals = [mean_interval(SCORES[w]) for w in (0.0, 2.0)]
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [[pytest.approx(i.low), pytest.approx(i.high)] for i in intervals]
