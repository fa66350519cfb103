"""The GRPO stage: learns, and has one gradient on any number of processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from flowsmith.candidates import CandidateBatch
from flowsmith.objectives.errors import ObjectiveError
from flowsmith.policy import Policy, derived_seed, generate, load_pair
from flowsmith.policy.generator import LocalGenerator
from flowsmith.prompts import read_prompts
from tests.lightning_modules.grpo_world import (
    TIMED,
    ConstantReward,
    EvenPromptsReward,
    Recorder,
    StepsReward,
    data,
    module,
    parameters,
    trainer,
    write_world,
)
from tests.policy.world import BUDGET, small_codec, write_text_model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_first_cycle_logs_what_can_be_computed_by_hand(world: Path, tmp_path: Path) -> None:
    recorder, grpo = Recorder(), module(world, doubt_penalty=2.0, seed=5)
    trainer(tmp_path, callbacks=[recorder]).fit(grpo, data(world, 1))
    logged = recorder.cycles[0]

    batch = next(iter(data_of(world)))
    policy = Policy.load(world / "vocabulary")
    groups = generate(
        policy, [p.text for p in batch], 4, seed=derived_seed(5, "cycle", 0), sample_ids=[p.id for p in batch]
    )
    rollouts = [rollout for group in groups for rollout in group]
    mean = StepsReward().predict([], [r.flow for r in rollouts])[0].view(4, 4)
    rewards = mean - 2.0 * 0.25
    lengths = [len(r.flow_tokens) for r in rollouts]
    expected = {
        "reward": rewards.mean().item(),
        "reward_std": rewards.std(1).mean().item(),
        "frac_reward_zero_std": sum(len(set(row)) == 1 for row in rewards.tolist()) / 4,
        "rewards/ensemble/mean": mean.mean().item(),
        "rewards/ensemble/doubt": 0.25,
        "completions/mean_length": sum(lengths) / 16,
        "completions/min_length": min(lengths),
        "completions/max_length": max(lengths),
        "unique_flows": len({r.flow.key for r in rollouts}),
        "optimizer_step": 1,
        "samples_seen": 16,
        "rollout_step": 1,
        "beta": 0.04,
        "entropy_bonus": 0.0,
        "reward/invalid": 0.0,
        "completions/clipped_ratio": sum(length == BUDGET for length in lengths) / 16,
        "num_tokens": sum(lengths) + sum(len(r.prompt_ids) for r in rollouts),
        "ratio_mean": 1.0,
        "clip_ratio/region_mean": 0.0,
    }
    assert {name: logged[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert logged["kl"] == pytest.approx(0, abs=1e-9)
    assert 0 <= logged["sampling/kl"] < 1e-10
    assert logged["sampling/sampling_logp_difference/max"] < 1e-5
    phases = ("rollout", "reward", "logprob", "update")
    assert 0.5 < sum(logged[f"time_share/{phase}"] for phase in phases) <= 1
    assert logged["tokens_per_second"] == pytest.approx(logged["num_tokens"] / logged["step_time"])
    # Entropy of the choices themselves is at most the logarithm of the largest set of choices.
    assert 0 < logged["entropy"] < torch.tensor(float(small_codec().size)).log()


def data_of(world: Path) -> Any:
    prompts = data(world, 1)
    prompts.setup()
    return prompts.train_dataloader()


def test_reward_rises(world: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    grpo = module(world, samples=8, learning_rate=1e-2, warmup_steps=0, changes={"beta": 0.0})
    trainer(tmp_path, callbacks=[recorder]).fit(grpo, data(world, 25))
    rewards = [cycle["reward"] for cycle in recorder.cycles]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:3]) / 3 + 0.3


def test_reward_rises_with_lora(world: Path, tmp_path: Path) -> None:
    base = str(write_text_model(tmp_path / "base"))
    Policy.from_text_model(small_codec(), base, BUDGET, lora_rank=4).export(tmp_path / "vocabulary")
    recorder = Recorder()
    grpo = module(
        world, vocabulary=str(tmp_path / "vocabulary"), samples=8, learning_rate=2e-2, warmup_steps=0,
        changes={"beta": 0.0},
    )  # fmt: skip
    trainer(tmp_path, callbacks=[recorder]).fit(grpo, data(world, 15))
    rewards = [cycle["reward"] for cycle in recorder.cycles]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2


def test_kl_holds_the_policy_back(world: Path, tmp_path: Path) -> None:
    ends = []
    for beta in (0.001, 5.0):
        recorder = Recorder()
        grpo = module(world, learning_rate=1e-2, warmup_steps=0, changes={"beta": beta})
        trainer(tmp_path, callbacks=[recorder]).fit(grpo, data(world, 10))
        ends.append(recorder.cycles[-1]["kl"])
    assert ends[1] < ends[0] / 3


def test_equal_rewards_move_nothing(world: Path, tmp_path: Path) -> None:
    recorder, grpo = (
        Recorder(),
        module(world, reward_function=ConstantReward(), changes={"beta": 0.0}, epochs=2),
    )
    trainer(tmp_path, callbacks=[recorder]).fit(grpo, data(world, 2))
    before = dict(Policy.load(world / "vocabulary").named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in parameters(grpo).items())
    assert recorder.cycles[-1]["grad_norm"] == 0
    assert recorder.cycles[-1]["frac_reward_zero_std"] == 1


def test_micro_batches_do_not_change_the_gradient(world: Path, tmp_path: Path) -> None:
    gradients = []
    for size in (16, 3):
        recorder = Recorder()
        grpo = module(world, double=True, micro_batch=size, max_grad_norm=1e9)
        trainer(tmp_path, callbacks=[recorder]).fit(grpo, data(world, 1))
        gradients.append(recorder.gradients[0])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-9, rtol=0)


def test_two_processes_have_the_gradient_of_one(world: Path, tmp_path: Path) -> None:
    """Two real gloo processes, two cycles of two epochs of two updates: fp64 gradients, then metrics.

    With all that needs the groups of every process: replay, refills, a threshold over all entropies, and a KL in
    the reward under advantages of the whole batch.
    """
    results = []
    for processes in (1, 2):
        file = str(tmp_path / f"{processes}.pt")
        grpo = module(
            world, double=True, micro_batch=3, epochs=2, minibatches=2, max_grad_norm=1e9, learning_rate=1e-3,
            reward_function=EvenPromptsReward(), replay=0.5, refills=1, reference="ema", reference_decay=0.5,
            changes={
                "advantage": "batch", "beta": 0.1, "kl": "k1", "kl_in": "reward", "top_entropy": 0.5,
                "kl_target": 0.01, "kl_horizon": 64,
            },
        )  # fmt: skip
        strategy: dict[str, Any] = (
            {"devices": 2, "strategy": "ddp_spawn"} if processes == 2 else {"devices": 1}
        )
        t = trainer(tmp_path, callbacks=[Recorder(file)], use_distributed_sampler=True, **strategy)
        t.fit(grpo, data(world, 2))
        results.append(torch.load(file, weights_only=False))
    one, two = results
    assert len(one["gradients"]) == len(two["gradients"]) == 8
    torch.testing.assert_close(two["gradients"], one["gradients"], atol=1e-9, rtol=0)
    for mine, other in zip(one["cycles"], two["cycles"], strict=True):
        timed = {name for name in mine if name.startswith(TIMED)}
        assert {k: other[k] for k in other.keys() - timed} == pytest.approx(
            {k: mine[k] for k in mine.keys() - timed}, abs=1e-6
        )


def test_validation_hands_on_prompts_for_callbacks_to_fill(world: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    prompts = data(world, 1, validation_prompts=3, validation_batch=2)
    trainer(tmp_path, callbacks=[recorder], limit_val_batches=1.0).fit(module(world), prompts)
    assert all(isinstance(output, CandidateBatch) and output.candidates == [] for output in recorder.outputs)
    expected = read_prompts(world / "prompts.jsonl", "validation")
    assert [p for output in recorder.outputs for p in output.prompts] == expected


def test_export_holds_policy_and_reference(world: Path, tmp_path: Path) -> None:
    grpo = module(world)
    trainer(tmp_path).fit(grpo, data(world, 2))
    grpo.export(tmp_path / "export")
    policy, reference = load_pair(tmp_path / "export" / "policy", tmp_path / "export" / "reference")
    original = dict(Policy.load(world / "vocabulary").named_parameters())
    assert all(torch.equal(p, original[name]) for name, p in reference.named_parameters())
    trained = parameters(grpo)
    assert all(torch.equal(p, trained[name]) for name, p in policy.named_parameters())
    assert not all(torch.equal(p, original[name]) for name, p in policy.named_parameters())


def test_lora_trains_its_second_adapter_only(world: Path, tmp_path: Path) -> None:
    base = str(write_text_model(tmp_path / "base"))
    Policy.from_text_model(small_codec(), base, BUDGET, lora_rank=4).export(tmp_path / "vocabulary")
    grpo = module(world, vocabulary=str(tmp_path / "vocabulary"), learning_rate=1e-2, changes={"beta": 0.1})
    checkpoint = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    trainer(tmp_path, callbacks=[checkpoint], enable_checkpointing=True).fit(grpo, data(world, 2))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    assert saved
    assert all(".policy." in name and "lora_" in name for name in saved)
    before = dict(Policy.load(tmp_path / "vocabulary").named_parameters())
    after = dict(grpo.reference.named_parameters())
    assert all(torch.equal(p, after[name]) for name, p in before.items())
    moved = [
        not torch.equal(p, after[n.replace(".policy.", ".vocabulary.")])
        for n, p in after.items()
        if ".policy." in n
    ]
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 1}, "use 2"),
        ({"micro_batch": 0}, "micro_batch=0.*or null"),
        ({"refills": -1}, "refills=-1.*0 or more refills"),
        ({"sampling_cap": 0.5}, "sampling_cap=0.5"),
        ({"objective": "ppo"}, "preset=ppo"),
        ({"reference": "none"}, "reference=none with beta=0.04.*nothing to measure"),
        ({"epochs": 0}, "use 1 or more"),
        ({"changes": {"kl": "k1"}}, "k3"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0.*0 or more"),
        ({"warmup_steps": -1}, "warmup_steps=-1.*0 or more"),
        ({"max_grad_norm": 0.0}, r"max_grad_norm=0.0: .*above 0"),
    ],
)
def test_settings_that_cannot_work(world: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        module(world, **settings)


def test_minibatches_that_do_not_divide_the_prompts_are_refused_before_sampling(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalGenerator, "generate", lambda *_, **__: pytest.fail("it sampled"))
    with pytest.raises(ObjectiveError, match=r"minibatches=3, but a process has 4.*batch_prompts a multiple"):
        trainer(tmp_path).fit(module(world, minibatches=3), data(world, 1))
