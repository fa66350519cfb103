"""A run of GRPO that was killed goes on bit for bit; a checkpoint of something else is refused."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from flowsmith.objectives.errors import ObjectiveError
from lightning_modules.grpo import GRPOModule
from tests.lightning_modules.grpo_world import (
    TIMED,
    EvenPromptsReward,
    Recorder,
    data,
    module,
    parameters,
    trainer,
    write_world,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


class Killed(Exception):
    pass


class Kill(Callback):
    """Ends the run as a crash would, after so many batches and before anything else is written."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_start(self, *_: Any) -> None:
        self.batches -= 1
        if self.batches < 0:
            raise Killed


STATEFUL: dict[str, Any] = {
    "reference": "ema",
    "reference_decay": 0.8,
    "replay": 0.5,
    "replay_age": 2,
    "refills": 1,
    "reward_function": EvenPromptsReward(),
    "changes": {
        "beta": 0.1, "kl_target": 0.01, "kl_horizon": 64, "entropy_bonus": 0.01, "entropy_target": 0.5,
        "entropy_horizon": 64,
    },
}  # fmt: skip
"""Everything that the next cycle depends on beside parameters and optimizer."""


@pytest.mark.parametrize(
    ("cycles", "epochs", "killed_after", "settings"),
    [(4, 1, 2, {}), (2, 2, 3, {}), (2, 2, 2, {}), (5, 1, 3, STATEFUL)],
)
def test_killed_and_resumed_is_bit_for_bit_the_undisturbed_run(
    world: Path, tmp_path: Path, cycles: int, epochs: int, killed_after: int, settings: dict[str, Any]
) -> None:
    def run(
        folder: Path, *callbacks: Callback, resume: bool = False
    ) -> tuple[GRPOModule, dict[str, Any], Recorder]:
        recorder = Recorder()
        grpo = module(world, epochs=2, minibatches=2, learning_rate=1e-2, **settings)
        checkpoint = ModelCheckpoint(
            folder, save_last=True, every_n_train_steps=1, save_top_k=-1, filename="{step}"
        )
        t = trainer(
            folder, callbacks=[recorder, checkpoint, *callbacks], enable_checkpointing=True, max_epochs=epochs
        )
        path = str(folder / "last.ckpt") if resume else None
        try:
            t.fit(grpo, data(world, cycles), ckpt_path=path, weights_only=False)
        except Killed:
            return grpo, {}, recorder
        return grpo, t.optimizers[0].state_dict(), recorder

    whole, whole_optimizer, told = run(tmp_path / "whole")
    run(tmp_path / "parts", Kill(killed_after))
    parts, parts_optimizer, told_again = run(tmp_path / "parts", resume=True)

    assert whole.cycle == parts.cycle == cycles * epochs
    assert len(told_again.cycles) == cycles * epochs - killed_after
    assert all(torch.equal(p, parameters(parts)[name]) for name, p in parameters(whole).items())
    if settings:
        averages = dict(parts.average.named_buffers())
        assert all(torch.equal(average, averages[name]) for name, average in whole.average.named_buffers())
        assert told.cycles[-1]["replay/groups"] > 0
        assert told.cycles[-1]["refill/sampled"] > 0
        assert len({cycle["beta"] for cycle in told.cycles}) == cycles
        assert len({cycle["entropy_bonus"] for cycle in told.cycles}) == cycles
    assert whole_optimizer["param_groups"] == parts_optimizer["param_groups"]
    for state, other in zip(
        whole_optimizer["state"].values(), parts_optimizer["state"].values(), strict=True
    ):
        assert all(torch.equal(state[key], other[key]) for key in state)
    for mine, other in zip(told.cycles[killed_after:], told_again.cycles, strict=True):
        timed = {name for name in mine if name.startswith(TIMED)}
        assert {k: mine[k] for k in mine.keys() - timed} == {k: other[k] for k in other.keys() - timed}


class KillInValidation(Callback):
    """Ends the run as a crash would, in the validation after so many cycles."""

    def __init__(self, cycles: int) -> None:
        self.cycles = cycles

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if pl_module.cycle == self.cycles:
            raise Killed


@pytest.mark.parametrize("cycles", [2, 4])
def test_killed_between_an_epochs_last_checkpoint_and_its_end(
    world: Path, tmp_path: Path, cycles: int
) -> None:
    """`every_n_train_steps` saves in an epoch's last batch, which the epoch's validation and end have yet to follow."""

    def run(name: str, *callbacks: Callback, resume: bool = False) -> tuple[GRPOModule, list[float]]:
        recorder, grpo = Recorder(), module(world, learning_rate=1e-2, **STATEFUL)
        checkpoint = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=1)
        t = trainer(
            tmp_path, callbacks=[recorder, checkpoint, *callbacks], enable_checkpointing=True, max_epochs=3,
            limit_val_batches=1.0,
        )  # fmt: skip
        path = str(tmp_path / name / "last.ckpt") if resume else None
        try:
            t.fit(grpo, data(world, 2, validation_prompts=3), ckpt_path=path, weights_only=False)
        except Killed:
            assert grpo.cycle == cycles
        return grpo, [cycle["rollout_step"] for cycle in recorder.cycles]

    whole, every = run("whole")
    run("parts", KillInValidation(cycles))
    parts, rest = run("parts", resume=True)
    assert every == [1, 2, 3, 4, 5, 6]
    assert rest == every[cycles:]
    assert all(torch.equal(p, parameters(parts)[name]) for name, p in parameters(whole).items())
    averages = dict(parts.average.named_buffers())
    assert all(torch.equal(average, averages[name]) for name, average in whole.average.named_buffers())


def test_a_checkpoint_holds_only_what_trains(world: Path, tmp_path: Path) -> None:
    grpo = module(world)
    checkpoint = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    trainer(tmp_path, callbacks=[checkpoint], enable_checkpointing=True).fit(grpo, data(world, 1))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert set(saved["state_dict"]) == {f"policy.{name}" for name, _ in grpo.policy.named_parameters()}
    assert saved["cycle"] == 1


def test_the_state_of_the_cycle_is_plain_values(world: Path, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    grpo = module(world, **STATEFUL)
    trainer(tmp_path, callbacks=[checkpoint], enable_checkpointing=True).fit(grpo, data(world, 2))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    torch.save(saved["cycle_state"], tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)  # refuses anything but plain values
    assert set(state) == {"beta", "entropy_bonus", "replay", "invalid_rewards"}
    assert len(state["replay"]["groups"]) >= 4
    kept = {f"average.{name}" for name, _ in grpo.average.named_buffers()}
    assert kept < set(saved["state_dict"])


def _no_cycle(saved: dict[str, Any]) -> None:
    del saved["cycle"]


def _less(saved: dict[str, Any]) -> None:
    saved["state_dict"].popitem()


def _more(saved: dict[str, Any]) -> None:
    saved["state_dict"]["policy.model.deeper"] = torch.zeros(3)


def _wider(saved: dict[str, Any]) -> None:
    saved["state_dict"] = {name: torch.cat([p, p]) for name, p in saved["state_dict"].items()}


def _other_words(saved: dict[str, Any]) -> None:
    saved["codec"] = "0123abcd"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_cycle, "no count of finished cycles"),
        (_less, r"1 of .* trained tensors"),
        (_more, r"1 tensors in it train nowhere here, the first policy\.model\.deeper"),
        (_wider, r"is \d+( x \d+)? in it and \d+( x \d+)? here; it is of another model"),
        (_other_words, "flow vocabulary 0123abcd, this run's is"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, world: Path, tmp_path: Path
) -> None:
    grpo = module(world)
    checkpoint = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    trainer(tmp_path, callbacks=[checkpoint], enable_checkpointing=True).fit(grpo, data(world, 1))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    change(saved)
    torch.save(saved, tmp_path / "other.ckpt")
    with pytest.raises(ObjectiveError, match=message):
        trainer(tmp_path).fit(
            module(world), data(world, 2), ckpt_path=str(tmp_path / "other.ckpt"), weights_only=False
        )


@pytest.mark.parametrize(
    ("ends", "steps"),
    [
        ({"max_epochs": 2}, 24),  # of three cycles of two epochs of two updates
        ({"max_epochs": 2, "max_steps": 8}, 8),
        ({"max_epochs": -1, "max_steps": 8}, 8),
        ({"max_epochs": -1}, None),
    ],
)
def test_the_learning_rate_falls_to_zero_where_the_run_ends(
    world: Path, tmp_path: Path, ends: dict[str, int], steps: int | None
) -> None:
    recorder = Recorder()
    grpo = module(world, samples=2, epochs=2, minibatches=2, learning_rate=1e-3, warmup_steps=1)
    t = trainer(tmp_path, callbacks=[recorder, Kill(4)], **ends)
    with pytest.raises(Killed) if steps is None or steps > 16 else nullcontext():
        t.fit(grpo, data(world, 3))
    # By hand: the rise ends at step 1, the fall at the last; what is logged is for the step after.
    expected = [1e-3 if steps is None else 1e-3 * (steps - done) / (steps - 1) for done in (4, 8, 12, 16)]
    logged = [cycle["learning_rate"] for cycle in recorder.cycles]
    assert logged == pytest.approx(expected[: len(logged)])
    assert len(logged) == (4 if steps != 8 else 2)
