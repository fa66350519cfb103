from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from miniature import training


class Stopped(Exception):
    """A crash in the middle."""


def _fit(scratch: Path, stop_at: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)

    def loss(step: int) -> Tensor:
        if step == stop_at:
            raise Stopped
        x = torch.randn(16, 3)  # the loop seeds by step
        error: Tensor = (layer(x) - x.sum(1, keepdim=True)) ** 2
        return error.mean()

    training.fit("line", {"layer": layer}, loss, steps=40, lr=0.2, scratch=scratch, ema=0.9, warmup=5)
    return layer


def test_a_stopped_run_ends_where_an_undisturbed_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _fit(tmp_path / "whole")
    monkeypatch.setattr(training, "_SAVE_EVERY", 0.0)
    with pytest.raises(Stopped):
        _fit(tmp_path / "parts", stop_at=23)
    resumed = _fit(tmp_path / "parts")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not list((tmp_path / "parts").glob(".*"))


def test_it_learns_the_line(tmp_path: Path) -> None:
    layer = _fit(tmp_path)
    x = torch.eye(3)
    assert float((layer(x) - 1).abs().max().detach()) < 0.5
