import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks import Gallery
from callbacks.gallery import cell
from flowsmith.candidates import Candidate, CandidateBatch
from flowsmith.prompts import Prompt
from tests.flows_for_tests import some_flows


def test_a_wide_picture_keeps_its_proportions() -> None:
    candidate = Candidate("x", Prompt("p", "x"), some_flows(1)[0], "a", 0)
    assert int(cell(candidate, 8).max()) == 0
    candidate.image = torch.full((3, 4, 8), 200, dtype=torch.uint8)
    picture = cell(candidate, 16)
    assert picture[0, :, 3].tolist() == [0] * 4 + [200] * 8 + [0] * 4
    assert int(picture[:, 4:12].min()) == 200


def test_a_row_per_designer_and_flows_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[tuple[str, torch.Tensor, int]] = []
    texts: dict[str, str] = {}
    writer = SimpleNamespace(
        add_image=lambda *told: images.append(told),
        add_text=lambda name, text, step: texts.update({name: text}),
    )
    monkeypatch.setattr("callbacks.gallery.tensorboard_of", lambda trainer: writer)
    trainer: Any = SimpleNamespace(global_step=7)
    module: Any = None
    flow = some_flows(1)[0]
    shades = {("a", "p0"): 10, ("a", "p1"): 20, ("b", "p1"): 40, ("a", "p2"): 99}
    candidates = [
        Candidate(
            f"{d}/{p}/0", Prompt(p, f"a *{p}*"), flow, d, 0, score=1.5,
            image=torch.full((3, 5, 5), shade, dtype=torch.uint8),
        )
        for (d, p), shade in shades.items()
    ]  # fmt: skip
    again = Candidate("a/p0/1", Prompt("p0", "x"), flow, "a", 0, image=torch.full((3, 5, 5), 77).byte())
    failed = Candidate("b/p0/0", Prompt("p0", "broken"), flow, "b", 0, error="boom")
    gallery = Gallery(pictures=2, flows=1)
    gallery.on_validation_epoch_start(trainer, module)
    gallery.fill(module, CandidateBatch([], [candidates[0], again, *candidates[1:2], failed]))
    gallery.on_validation_epoch_end(trainer, module)
    gallery.on_validation_epoch_start(trainer, module)
    gallery.fill(module, CandidateBatch([], [candidates[0], again, *candidates[1:]]))
    gallery.on_validation_epoch_end(trainer, module)

    def shown(grid: torch.Tensor) -> list[list[int]]:
        middles = range(2 + 48, grid.shape[1], 98), range(2 + 48, grid.shape[2], 98)
        return [[int(grid[0, y, x]) for x in middles[1]] for y in middles[0]]

    (name, first, step), (_, second, _) = images
    assert (name, step) == ("val/pictures", 7)
    assert shown(first) == [
        [10, 20],
        [0, 0],
    ]  # one picture a prompt; what failed, and what is not there, is black
    assert shown(second) == [[10, 20], [40, 0]]
    assert set(texts) == {"val/flows/a", "val/flows/b"}
    assert texts["val/flows/a"].startswith("**a *p0*** (score +1.50)\n\n    {")
    body = texts["val/flows/a"].partition("\n\n")[2]
    assert json.loads(body) == flow.to_template()
