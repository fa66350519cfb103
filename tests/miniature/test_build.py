import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowsmith.prompts import read_prompts
from miniature import build, prompt_set
from miniature.build import Step, forget, run, steps_of
from miniature.prompt_set import write_prompt_set
from miniature.record import Reached, Training, read_record, write_record
from miniature.training import fit

Figures = dict[str, float]


def _step(name: str, made: list[str], figures: Figures, **bounds: Figures) -> Step:
    return Step(
        name, lambda: made.append(name), lambda: figures, bounds.get("least", {}), bounds.get("most", {})
    )


@pytest.mark.parametrize(
    ("figure", "missed"),
    [
        (1.15, []),
        (1.45, []),
        (1.14, ["ratio at least 1.150"]),
        (1.46, ["ratio at most 1.450"]),
        (float("nan"), ["ratio at least 1.150", "ratio at most 1.450"]),
    ],
)
def test_bounds_of_a_gate(figure: float, missed: list[str]) -> None:
    step = _step("vivid", [], {}, least={"ratio": 1.15}, most={"ratio": 1.45})
    assert step.missed({"ratio": figure}) == missed


def test_a_missed_gate_is_recorded_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "gates.json"
    write_record(record, {"earlier": Reached({"a": 1.0}, 0, 2.0)})
    assert run(_step("good", [], {"rate": 0.5}, least={"rate": 0.5}), tmp_path, record, seed=3)
    assert not run(_step("bad", [], {"rate": 0.4}, least={"rate": 0.5}), tmp_path, record, seed=3)
    assert "gate missed, rate at least 0.500 was asked" in capsys.readouterr().err
    reached = read_record(record)
    assert list(reached) == ["earlier", "good", "bad"]
    assert reached["bad"].missed == ["rate at least 0.500"]
    assert reached["good"].missed == []
    assert reached["good"].figures == {"rate": 0.5}
    assert reached["good"].seed == 3
    assert reached["good"].seconds < 5
    assert not reached["good"].resumed


def _fit_nothing(name: str, target: float, scratch: Path) -> None:
    """Train with steps of no length: the loss stays the square of the target."""
    layer = nn.Linear(1, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

    def loss(step: int) -> Tensor:
        error: Tensor = (layer(torch.ones(1, 1)) - target) ** 2
        return error.mean()

    fit(name, {"layer": layer}, loss, steps=2, lr=0.0, scratch=scratch)


def test_the_last_loss_of_every_training_is_kept(tmp_path: Path) -> None:
    def make() -> None:
        _fit_nothing("first", 1.0, tmp_path)
        _fit_nothing("second", 3.0, tmp_path)

    step = Step("both", make, dict, {}, trainings=("first", "second", "never run"))
    record = tmp_path / "gates.json"
    run(step, tmp_path, record, seed=0)
    reached = read_record(record)["both"]
    assert reached.trainings == {"first": Training(2, 1.0), "second": Training(2, 9.0)}
    assert not reached.resumed
    run(step, tmp_path, record, seed=0)
    assert read_record(record)["both"].resumed, "its states lay there"

    (tmp_path / "other.pt").touch()
    forget(step, tmp_path, record)
    assert read_record(record) == {}
    assert {path.name for path in tmp_path.glob("*.pt")} == {"other.pt"}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str]]]:
    """Return a function that runs the build of three steps and says how it ended and what was made."""
    figures = {"one": {"rate": 1.0}, "two": {"rate": 0.1}, "three": {"rate": 1.0}}

    def start(*words: str, better: bool = False) -> tuple[int, list[str]]:
        made: list[str] = []
        if better:
            figures["two"]["rate"] = 1.0
        steps = [_step(name, made, figures[name], least={"rate": 0.5}) for name in figures]
        monkeypatch.setattr(build, "steps_of", lambda out, scratch, seed: steps)
        monkeypatch.setattr(sys, "argv", ["build", "--scratch", str(tmp_path), *words])
        return build.main(), made

    return start


def test_the_build_stops_at_a_missed_gate_and_goes_on_there(
    built: Callable[..., tuple[int, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert built() == (1, ["one", "two"])
    assert built("--list") == (0, [])
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "one: rate 1.000 (0 s)",
        "two: rate 0.100 (0 s); gate missed, rate at least 0.500 was asked",
        "three: to be made",
    ]
    assert built("--only", "three") == (0, ["three"])
    assert built(better=True) == (0, ["two"])
    assert built("--again", "one") == (0, ["one"])
    assert built() == (0, [])
    with pytest.raises(SystemExit):
        built("--only", "four")
    assert "no step is called 'four'; the steps are one, two, three" in capsys.readouterr().err


def test_every_product_has_a_step_of_its_own(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, tmp_path, 0)
    names = [step.name for step in steps]
    made = ["mini_pencil", "mini_crowd", "mini_poster", "mini_striped"]
    base = ["base_first", "base"]
    assert names[:11] == ["prompts", "tokenizer", "vae", *base, "vivid", "upscaler", *made]
    states = [state for step in steps for state in step.states()]
    assert len(set(names)) == len(names)
    assert len(set(states)) == len(states), "no two steps may share a training"


def test_prompts_take_turns_and_are_all_different(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_set, "PROMPTS", {"train": 5, "validation": 2, "test": 3})
    write_prompt_set(tmp_path / "prompts.jsonl", 0)
    prompts = read_prompts(tmp_path / "prompts.jsonl")
    assert len(prompts) == 60
    assert len({prompt.text for prompt in prompts}) == 60
    assert len({prompt.task for prompt in prompts[:6]}) == 6
    assert [prompt.split for prompt in prompts] == 30 * ["train"] + 12 * ["validation"] + 18 * ["test"]


def test_the_shipped_prompts_are_made_again(tmp_path: Path) -> None:
    write_prompt_set(tmp_path / "prompts.jsonl", 0)
    assert (tmp_path / "prompts.jsonl").read_bytes() == (build.HERE / "data" / "prompts.jsonl").read_bytes()


def test_a_record_is_plain_json(tmp_path: Path) -> None:
    reached = {"base": Reached({"overall": 0.5}, 1, 12.5, True, {"base_objects": Training(6000, 0.25)})}
    write_record(tmp_path / "gates.json", reached)
    assert read_record(tmp_path / "gates.json") == reached
    assert json.loads((tmp_path / "gates.json").read_text())["base"]["trainings"]["base_objects"] == {
        "steps": 6000,
        "loss": 0.25,
    }
    assert read_record(tmp_path / "none.json") == {}
