"""Keeping what the policy writes: which cycles, where, by whom."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from callbacks import Completions
from callbacks.candidate_callback import CallbackOrderError
from flowsmith.policy import completions
from tests.policy.group_world import groups_of
from tests.policy.world import PROMPTS, small_policy


def module(cycle: int) -> Any:
    policy = small_policy()
    learned = completions.Completions(groups_of(policy, PROMPTS, 2), torch.zeros(4, 2))
    return SimpleNamespace(cycle=cycle, policy=policy, completions=learned)


def trainer(folder: Path, **settings: bool) -> Any:
    roles = {"is_global_zero": True, "fast_dev_run": False} | settings
    return SimpleNamespace(default_root_dir=str(folder), **roles)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    told: list[tuple[str, str, int]] = []
    writer = SimpleNamespace(add_text=lambda *text: told.append(text))
    monkeypatch.setattr("callbacks.completions.tensorboard_of", lambda trainer: writer)
    return told


def test_every_so_many_cycles_a_file_and_a_text(tmp_path: Path, texts: list[tuple[str, str, int]]) -> None:
    callback = Completions(every=3, prompts=2, samples=1)
    for cycle in range(1, 8):
        callback.on_train_batch_end(trainer(tmp_path), module(cycle), None, None, cycle - 1)
    files = sorted(file.name for file in (tmp_path / "completions").iterdir())
    assert files == ["cycle-000003.parquet", "cycle-000006.parquet"]
    assert pq.read_table(tmp_path / "completions" / files[1])["cycle"].to_pylist() == [6] * 8
    assert [(name, step) for name, _, step in texts] == [("train/completions", 3), ("train/completions", 6)]
    assert texts[0][1].count("reward ") == 2


@pytest.mark.parametrize("role", [{"is_global_zero": False}, {"fast_dev_run": True}])
def test_other_processes_and_trial_runs_leave_no_file(
    tmp_path: Path, texts: list[tuple[str, str, int]], role: dict[str, bool]
) -> None:
    Completions(every=1).on_train_batch_end(trainer(tmp_path, **role), module(1), None, None, 0)
    assert not list(tmp_path.iterdir())
    assert len(texts) == ("fast_dev_run" in role)


def test_without_text_only_the_file(tmp_path: Path, texts: list[tuple[str, str, int]]) -> None:
    Completions(every=1, prompts=0).on_train_batch_end(trainer(tmp_path), module(1), None, None, 0)
    assert texts == []
    assert len(list((tmp_path / "completions").iterdir())) == 1


def test_a_stage_that_samples_nothing_is_told_so() -> None:
    other: Any = SimpleNamespace()
    with pytest.raises(CallbackOrderError, match="SimpleNamespace samples nothing; remove it"):
        Completions().setup(other, other, "fit")
    with pytest.raises(CallbackOrderError, match="every=0"):
        Completions(every=0)
