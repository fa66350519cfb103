"""The judges against the checker, on painted pictures and with judges whose answers are known."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flowsmith.metrics import Judge
from flowsmith.prompts import Prompt
from miniature.judges import agreement
from miniature.judges.agreement import SHARPENED, auc, generated_auc
from miniature.judges.generated import FLOWS
from tests.miniature.painted import Painted


class Said(Judge):
    """A judge that says what a function says."""

    def __init__(self, name: str, function: Any) -> None:
        super().__init__(name)
        self.function = function

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        """Return the function of every image."""
        return torch.tensor([float(self.function(image)) for image in images])


def blue_ish(image: Tensor) -> bool | None:
    """Stand for the checker: right where blue outweighs red, no answer for some."""
    value = int(image.float().mean())
    return None if value % 5 == 0 else bool(image[2].float().mean() > image[0].float().mean())


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> Painted:
    painted = Painted()
    monkeypatch.setattr("miniature.judges.generated.Executor", painted.executor)
    monkeypatch.setattr("miniature.judges.generated.read_scene", painted.read)

    def check(picture: np.ndarray[Any, Any], facts: Mapping[str, Any]) -> bool | None:
        return blue_ish(torch.from_numpy(picture.copy()).permute(2, 0, 1))

    monkeypatch.setattr("miniature.judges.agreement.check", check)
    return painted


def test_auc_by_pairs() -> None:
    rng = np.random.default_rng(0)
    values, right = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a, b in product(values[right], values[~right])]
    assert auc(values, right) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc([1.0, 2.0], [True, True]))


def test_a_judge_that_knows_and_one_that_does_not(painted: Painted) -> None:
    judges = {
        "knows": Said("knows", lambda image: image[2].float().mean() - image[0].float().mean()),
        "constant but for size": Said("constant but for size", lambda image: image.shape[-1]),
        "contrary": Said("contrary", lambda image: image[0].float().mean() - image[2].float().mean()),
    }
    found = generated_auc(Path("none"), judges, seed=1, number=6, weights={"knows": 2.0})
    assert found["auc"]["knows"] == found["auc"]["score"] == 1.0
    assert found["auc"]["contrary"] == 0.0
    assert found["pictures"] == 6 * len(FLOWS)
    assert 0 < found["abstained"] < 0.6
    assert 0 < found["right"] < 1
    assert set(found["sharpening"]) == set(SHARPENED)
    for gains in found["sharpening"].values():
        assert gains["knows"] == pytest.approx(-gains["contrary"])
        assert gains["knows"] == pytest.approx(gains["score"])
        assert gains["constant but for size"] == 0


def test_gain_by_sharpening_by_hand(painted: Painted) -> None:
    """Every sharpened picture is said to be worth 3, every other 1 but for one that is worth 2."""
    order: dict[bytes, float] = {}

    def worth(image: Tensor) -> float:
        picture = image.permute(1, 2, 0).contiguous().numpy().tobytes()
        order.setdefault(picture, len(order))
        return order[picture]

    found = generated_auc(
        Path("none"), {"worth": Said("worth", worth)}, seed=1, number=6, weights={"worth": 1}
    )
    # Pictures are judged prompt by prompt, flow by flow, so their number in that order is what `worth` says.
    flows = len(FLOWS) + len(SHARPENED)
    plain = [flows * p + f for p in range(6) for f in range(len(FLOWS))]
    for number, name in enumerate(SHARPENED):
        assert found["sharpening"][name]["worth"] == pytest.approx((len(FLOWS) + number) / np.std(plain))


def test_it_writes_what_it_found(
    painted: Painted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("clip_score", "aesthetic", "preference", "preference_held_out")
    judges = {name: Said(name, lambda image: image.float().mean()) for name in names}
    monkeypatch.setattr(agreement, "load_judges", lambda folder: judges)
    out = tmp_path / "agreement.json"
    monkeypatch.setattr("sys.argv", ["agreement", "--out", str(out), "--number", "6"])
    assert agreement.main() == 0
    found = json.loads(out.read_text())
    assert set(found["auc"]) == {*names, "score"}
    assert f"clip_score {found['auc']['clip_score']:.3f}" in capsys.readouterr().out
