"""The page of metrics against small runs of each stage: every logged name is on it, and nothing else is."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks import Completions, Gallery, GuidanceCurve, GuidedSampling, ImageMetrics
from flowsmith.metrics.score import JudgeScale, Score
from lightning_modules.command_line.config_files import ROOT
from lightning_modules.command_line.jsonl_logger import JsonlLogger
from lightning_modules.reward_ensemble import RewardEnsembleModule
from lightning_modules.vocabulary import VocabularyModule
from tests.callbacks.painting import Grey, execution
from tests.lightning_modules.grpo_world import EvenPromptsReward, data, module, write_world
from tests.lightning_modules.test_reward_ensemble import TINY, make_data
from tests.lightning_modules.test_vocabulary import SMALL, FixedPairs, one_flow_a_prompt

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def documented(title: str) -> list[str]:
    """Return the names in the tables of a section."""
    (section,) = (part for part in re.split(r"^## ", PAGE, flags=re.M) if part.startswith(title + "\n"))
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.M)


def pattern(name: str) -> str:
    return re.sub(r"<\w+>", r"[^/]+", re.escape(name).replace(r"\<", "<").replace(r"\>", ">"))


def logged(
    folder: Path, module: LightningModule, data: LightningDataModule, callbacks: Sequence[Callback] = ()
) -> set[str]:
    """Train for an epoch with the loggers of the command line; return all names in their files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=[board, JsonlLogger(folder)], callbacks=list(callbacks),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        default_root_dir=folder, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(folder))
    events.Reload()
    tags: dict[str, Any] = events.Tags()
    texts = {tag.removesuffix("/text_summary") for tag in tags["tensors"]}
    return {name for row in rows for name in row} | {*tags["scalars"], *tags["images"], *texts}


def compare(names: set[str], title: str) -> None:
    own, general = documented(title), documented("Every stage")
    strange = {n for n in names if not any(re.fullmatch(pattern(d), n) for d in [*own, *general])}
    assert not strange, f"logged and not on the page: {sorted(strange)}"
    unheard = {d for d in [*own, *general] if not any(re.fullmatch(pattern(d), n) for n in names)}
    assert not unheard, f"on the page and not logged: {sorted(unheard)}"


def test_reward(tmp_path: Path) -> None:
    compare(logged(tmp_path, RewardEnsembleModule(**TINY), make_data(tmp_path)), "Reward ensemble")


def test_vocabulary(tmp_path: Path) -> None:
    compare(logged(tmp_path, VocabularyModule(**SMALL), FixedPairs(one_flow_a_prompt())), "Vocabulary")


def test_grpo(tmp_path: Path) -> None:
    """With everything on that has names of its own, validation with painted pictures included."""
    write_world(tmp_path)
    Score({"grey": JudgeScale(100.0, 50.0)}).save(tmp_path / "score.json")
    callbacks = [
        Completions(every=1),
        GuidedSampling([0.0, 2.0], samples=1),
        execution(),
        ImageMetrics([Grey("grey")], score=str(tmp_path / "score.json")),
        GuidanceCurve(),
        Gallery(pictures=2),
    ]
    grpo = module(
        tmp_path, reward_function=EvenPromptsReward(), refills=1, replay=0.5, sampling_correction="token",
        changes={"surrogate": "dual_clip"},
    )  # fmt: skip
    names = logged(tmp_path, grpo, data(tmp_path, 2, validation_prompts=2, validation_batch=2), callbacks)
    compare(names, "GRPO")
    assert {file.name for file in (tmp_path / "completions").iterdir()} == {
        "cycle-000001.parquet",
        "cycle-000002.parquet",
    }


def test_a_name_that_is_not_on_the_page_is_told() -> None:
    names = {*documented("Vocabulary"), *documented("Every stage")}
    compare(names, "Vocabulary")
    with pytest.raises(AssertionError, match=r"not on the page: \['val/los'\]"):
        compare({*names, "val/los"}, "Vocabulary")
    with pytest.raises(AssertionError, match=r"not logged: \['val/loss'\]"):
        compare(names - {"val/loss"}, "Vocabulary")
