import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from miniature import gates
from miniature.captions import TASKS
from miniature.gates import Losses, checker_rates, lora_peak, peak, specialised, specialty_losses, summary
from miniature.specialties import POSTER, STRENGTHS, train_lora
from tests.miniature.untrained import make_untrained_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrained_base(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = base.parent.parent / "loras" / "mini_poster.safetensors"
    scratch = tmp_path_factory.mktemp("scratch")
    train_lora(out, base=base, specialty=replace(POSTER, steps=3), seed=0, scratch=scratch, pictures=(50, 50))
    return out


def test_an_abstention_is_not_right_and_is_told() -> None:
    verdicts: dict[str, list[bool | None]] = {
        "counting": [True, None, False, None],
        "colors": [True, True, True, False],
    }
    assert summary(verdicts) == {
        "overall": 0.5,
        "least task": 0.25,
        "most task": 0.75,
        "abstained": 0.25,
        "counting": 0.25,
        "colors": 0.75,
    }


def test_rates_go_with_the_prompts_tasks(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a checker that likes crowds without colour, and abstains from pairs of things, rates are known beforehand."""

    def count(image: object, facts: dict[str, list[dict[str, Any]]]) -> bool | None:
        first = facts["groups"][0]
        return None if len(facts["groups"]) == 2 else first["count"] > 1 and first["color"] is None

    monkeypatch.setattr(gates, "check", count)
    flow = base.parent / "flow.json"
    flow.write_text(gates.DEFAULT_FLOW.read_text().replace('"steps": 20', '"steps": 4'))
    rates = checker_rates(base.parent.parent, seed=0, per_task=2, flow=flow)
    assert {task: rates[task] for task in TASKS} == {
        "single_object": 0.0,
        "two_object": 0.0,
        "counting": 1.0,
        "colors": 0.0,
        "position": 0.0,
        "color_attr": 0.0,
    }
    assert rates["abstained"] == 0.5
    assert rates["most task"] == 1.0


def test_a_picture_that_cannot_be_rendered_is_no_wrong_picture(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RuntimeError, match=r"default\.json cannot be rendered .*mini_base"):
        checker_rates(tmp_path, seed=0, per_task=1)


def test_where_a_sweep_peaks() -> None:
    own, elsewhere = [2.0, 1.8, 1.7, 1.6, 1.8, 2.0, 2.4], [1.0, 1.0, 1.1, 1.3, 1.5, 1.9, 2.5]
    figures = peak([Losses(a, b) for a, b in zip(own, elsewhere, strict=True)])
    assert figures["best strength"] == 0.75
    assert figures["gain on own"] == pytest.approx(0.2)
    assert figures["turn at 1.5"] == pytest.approx(0.5)
    assert figures["loss elsewhere"] == pytest.approx(0.5)
    assert figures["least rise elsewhere"] == pytest.approx(0.0)
    assert [figures[f"own at {s}"] for s in STRENGTHS] == pytest.approx([a / 2 for a in own])
    assert [figures[f"elsewhere at {s}"] for s in STRENGTHS] == pytest.approx(elsewhere)


def test_losses_are_paired(base: Path, tmp_path: Path) -> None:
    """Equal weights give equal losses to the last bit, wherever they lie."""
    shutil.copytree(base, tmp_path / "copy")
    figures = specialised(tmp_path / "copy", POSTER, base=base, seed=0, scenes=50)
    assert figures == {"gain on own": 0.0, "loss elsewhere": 0.0}


def test_strength_scales_a_lora(base: Path, lora: Path) -> None:
    plain = specialty_losses(base, POSTER, seed=0, scenes=50)[0]
    none, full, again = specialty_losses(
        base, POSTER, seed=0, scenes=50, lora=lora, strengths=(0.0, 1.0, 0.0)
    )
    assert none == again, "a strength leaves nothing behind"
    assert none.own == pytest.approx(plain.own, rel=1e-6)
    assert full.own != none.own
    assert specialty_losses(base, POSTER, seed=0, scenes=50, lora=lora)[0] == full


def test_a_sweep_runs_over_all_strengths(base: Path, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses that stand for the strength itself, of half the batch: own scenes are best at 0.5."""
    strengths: list[float] = []
    monkeypatch.setattr(gates, "_set_strength", lambda model, strength: strengths.append(strength))
    shown: Iterator[float] = iter([value for s in STRENGTHS for value in (1 + (s - 0.5) ** 2, 1 + s)])
    monkeypatch.setattr(gates, "_mean_loss", lambda *parts: next(shown))
    figures = lora_peak(lora, POSTER, base=base, seed=0, scenes=50)
    assert strengths[::2] == list(STRENGTHS) == strengths[1::2], "UNet and text encoder"
    assert figures["best strength"] == 0.5
    assert figures["turn at 1.5"] == pytest.approx(1.0)
    assert figures["least rise elsewhere"] == pytest.approx(0.25)
    assert not torch.is_inference_mode_enabled()
