"""One cycle in all its variants: references, refills, replay, rewards that fail, other engines, objectives."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from flowsmith.flows import Codec, Domain, Flow, Schema
from flowsmith.objectives.presets import Preset
from flowsmith.policy import Policy, PolicyError, flow_logprobs, load_pair
from flowsmith.policy.generator import LocalGenerator
from flowsmith.policy.noise import Name
from flowsmith.policy.rollout import Rollout
from flowsmith.prompts import Prompt, write_prompts
from flowsmith.rewards import RewardEnsemble, SmallEncoder
from lightning_modules.grpo import GRPOModule
from tests.lightning_modules.grpo_world import (
    ConstantReward,
    EvenPromptsReward,
    HolesReward,
    NoReward,
    Recorder,
    StepsReward,
    data,
    module,
    trainer,
    write_world,
)
from tests.policy.world import DOMAIN, PROMPTS, small_codec


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def run(world: Path, folder: Path, cycles: int = 2, **settings: Any) -> tuple[Any, list[dict[str, float]]]:
    recorder, grpo = Recorder(), module(world, **settings)
    trainer(folder, callbacks=[recorder]).fit(grpo, data(world, cycles))
    return grpo, recorder.cycles


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_published_objective_trains(world: Path, tmp_path: Path, preset: Preset) -> None:
    grpo, cycles = run(world, tmp_path, 1, objective=preset, learning_rate=1e-2, warmup_steps=0)
    assert [name for cycle in cycles for name, value in cycle.items() if not math.isfinite(value)] == []
    before = dict(Policy.load(world / "vocabulary").named_parameters())
    assert any(not torch.equal(p, before[name]) for name, p in grpo.policy.named_parameters())


def test_an_average_that_never_moves_is_the_frozen_reference(world: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"learning_rate": 1e-2, "warmup_steps": 0, "changes": {"beta": 0.5}}
    frozen, cycles = run(world, tmp_path, 2, **common)
    averaged, same = run(world, tmp_path, 2, reference="ema", reference_decay=1.0, **common)
    other = dict(averaged.policy.named_parameters())
    assert all(torch.equal(p, other[name]) for name, p in frozen.policy.named_parameters())
    assert [cycle["kl"] for cycle in cycles] == [cycle["kl"] for cycle in same]
    assert cycles[-1]["kl"] > 1e-4


def test_an_average_that_keeps_nothing_is_the_policy_itself(world: Path, tmp_path: Path) -> None:
    _, cycles = run(
        world, tmp_path, 2, reference="ema", reference_decay=0.0, learning_rate=1e-2, warmup_steps=0
    )
    assert [cycle["kl"] for cycle in cycles] == pytest.approx([0.0] * 2, abs=1e-9)


def test_the_exported_reference_is_the_vocabulary_model_whatever_the_kl_is_measured_to(
    world: Path, tmp_path: Path
) -> None:
    for reference, beta in (("ema", 0.1), ("none", 0.0)):
        grpo, cycles = run(
            world, tmp_path, reference=reference, changes={"beta": beta}, learning_rate=1e-2, warmup_steps=0
        )
        assert ("kl" in cycles[-1]) == (reference == "ema")
        grpo.export(tmp_path / reference)
        original = dict(Policy.load(world / "vocabulary").named_parameters())
        exported = Policy.load(tmp_path / reference / "reference").named_parameters()
        assert all(torch.equal(p, original[name]) for name, p in exported)


def test_at_beta_zero_the_kl_is_measured_and_weighs_nothing(world: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"learning_rate": 1e-2, "warmup_steps": 0, "changes": {"beta": 0.0}}
    measured, cycles = run(world, tmp_path, 2, **common)
    none, _ = run(world, tmp_path, 2, reference="none", **common)
    assert cycles[-1]["kl"] > 1e-4
    other = dict(none.policy.named_parameters())
    assert all(torch.equal(p, other[name]) for name, p in measured.policy.named_parameters())


def test_the_weight_of_the_kl_follows_its_target_by_hand(world: Path, tmp_path: Path) -> None:
    changes = {"beta": 0.1, "kl_target": 0.02, "kl_horizon": 32.0}
    _, cycles = run(world, tmp_path, 5, changes=changes, learning_rate=1e-2, warmup_steps=0)
    beta = 0.1
    for cycle in cycles:
        assert cycle["beta"] == pytest.approx(beta)
        # 16 samples of a horizon of 32; the error is clipped to a fifth.
        beta *= 1 + min(max((cycle["kl"] - 0.02) / 0.02, -0.2), 0.2) * 16 / 32
    assert beta != pytest.approx(0.1)


def test_a_kl_in_the_reward_lowers_the_advantage_of_what_left_the_reference(
    world: Path, tmp_path: Path
) -> None:
    """With equal rewards only the KL tells samples apart; leave-one-out advantages of -beta x KL by hand."""
    changes = {"kl_in": "reward", "kl": "k1", "beta": 0.5, "advantage": "leave_one_out"}
    grpo = module(world, changes=changes, reward_function=ConstantReward(), seed=3)
    grpo.policy, grpo.reference = load_pair(world / "vocabulary", world / "vocabulary", trainable=True)
    with torch.no_grad():
        for parameter in grpo.policy.parameters():
            parameter.mul_(1.05)
    trainer(tmp_path).fit(grpo, data(world, 1))
    completions = grpo.completions
    assert completions is not None
    reference = Policy.load(world / "vocabulary")
    for group, merits in zip(completions.groups, completions.advantages, strict=True):
        theirs = flow_logprobs(reference, [group.prompt] * 4, group.tokens)[0].sum(1)
        nats = torch.tensor([sum(values) for values in group.logprobs]) - theirs
        rewards = -0.5 * nats
        expected = rewards - (rewards.sum() - rewards) / 3
        torch.testing.assert_close(merits, expected, atol=1e-4, rtol=1e-4)
    assert completions.advantages.abs().max() > 1e-3


def test_flat_groups_are_refilled_by_other_prompts(world: Path, tmp_path: Path) -> None:
    grpo, cycles = run(world, tmp_path, 4, reward_function=EvenPromptsReward(), refills=4)
    assert sum(cycle["refill/sampled"] for cycle in cycles) > 0
    assert all(cycle["refill/left"] == 0 for cycle in cycles)
    completions = grpo.completions
    assert completions is not None
    assert all(group.varied for group in completions.groups)
    assert all(int(group.prompt.split()[-1]) % 2 == 0 for group in completions.groups)
    assert max(cycle["frac_reward_zero_std"] for cycle in cycles) > 0
    assert cycles[-1]["samples_seen"] == 4 * (16 + sum(cycle["refill/sampled"] for cycle in cycles))


def test_refills_are_bounded(world: Path, tmp_path: Path) -> None:
    _, cycles = run(world, tmp_path, 1, reward_function=ConstantReward(), refills=2)
    assert (cycles[0]["refill/sampled"], cycles[0]["refill/left"]) == (8, 1)
    assert cycles[0]["samples_seen"] == 16 * 3


def test_past_groups_come_again_with_the_probabilities_of_their_time(world: Path, tmp_path: Path) -> None:
    grpo, cycles = run(
        world, tmp_path, 4, replay=0.5, replay_age=2, samples=8, learning_rate=1e-2, warmup_steps=0
    )
    assert [cycle["replay/groups"] for cycle in cycles] == [0, 2, 2, 2]
    assert all(1 <= cycle["replay/age"] <= 2 for cycle in cycles[1:])
    completions = grpo.completions
    assert completions is not None
    assert {group.cycle for group in completions.groups[4:]} <= {1, 2}
    # The policy has moved since; what is compared with the sampler is of now only.
    assert abs(cycles[-1]["ratio_mean"] - 1) > 1e-4
    assert cycles[-1]["sampling/sampling_logp_difference/max"] < 1e-4
    assert cycles[0]["ratio_mean"] == pytest.approx(1, abs=1e-5)


def test_samples_without_a_reward_are_counted_and_the_others_teach(world: Path, tmp_path: Path) -> None:
    grpo, cycles = run(world, tmp_path, 3, reward_function=HolesReward(), samples=8, invalid_limit=1.0)
    assert 0 < cycles[0]["reward/invalid"] < 32
    assert [name for cycle in cycles for name, value in cycle.items() if not math.isfinite(value)] == []
    completions = grpo.completions
    assert completions is not None
    rewards = torch.tensor([group.rewards for group in completions.groups])
    assert (completions.advantages[rewards.isnan()] == 0).all()
    for merits, row in zip(completions.advantages, rewards, strict=True):
        known = row[~row.isnan()]
        expected = (
            (known - known.mean()) / (known.std() + 1e-4) if len(known) > 1 else torch.zeros(len(known))
        )
        torch.testing.assert_close(merits[~row.isnan()], expected)


def test_a_reward_that_is_gone_for_good_ends_the_run(world: Path, tmp_path: Path) -> None:
    recorder, grpo = Recorder(), module(world, reward_function=NoReward(), invalid_limit=0.2)
    with pytest.raises(PolicyError, match="48 samples of the last 3 cycles, 16 of 16 in this one"):
        trainer(tmp_path, callbacks=[recorder]).fit(grpo, data(world, 10))
    assert [cycle["reward/invalid"] for cycle in recorder.cycles] == [16, 16]
    before = dict(Policy.load(world / "vocabulary").named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in grpo.policy.named_parameters())


class FailsOnce(StepsReward):
    """No number in the second cycle."""

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        mean, doubt = super().predict(prompts, flows)
        self.asked += 1
        return (mean * torch.nan if self.asked == 2 else mean), doubt


def test_a_cycle_without_any_reward_moves_nothing(world: Path, tmp_path: Path) -> None:
    _, cycles = run(world, tmp_path, 3, reward_function=FailsOnce(), learning_rate=1e-2, warmup_steps=0)
    assert [cycle["reward/invalid"] for cycle in cycles] == [0, 16, 0]
    assert [cycle["optimizer_step"] for cycle in cycles] == [1, 1, 2]
    assert cycles[1]["grad_norm"] == cycles[1]["loss"] == 0


class OffByATenth(LocalGenerator):
    """An engine whose log-probabilities are all 0.1 too low."""

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[str],
        samples: int,
        *,
        seed: int,
        temperature: float = 1.0,
        sample_ids: Sequence[Name] | None = None,
    ) -> list[list[Rollout]]:
        groups = super().generate(
            policy, prompts, samples, seed=seed, temperature=temperature, sample_ids=sample_ids
        )
        return [
            [replace(r, logprobs=tuple(p - 0.1 if p else 0.0 for p in r.logprobs)) for r in group]
            for group in groups
        ]


@pytest.mark.parametrize(("correction", "ratio"), [("none", 1.10517), ("token", 1.0), ("sequence", 1.0)])
def test_what_another_engine_is_off_is_logged_and_can_be_corrected(
    world: Path, tmp_path: Path, correction: str, ratio: float
) -> None:
    _, cycles = run(world, tmp_path, 1, generator=OffByATenth(), sampling_correction=correction)
    assert cycles[0]["sampling/sampling_logp_difference/mean"] == pytest.approx(0.1, abs=1e-5)
    assert cycles[0]["sampling/sampling_logp_difference/max"] == pytest.approx(0.1, abs=1e-5)
    assert cycles[0]["sampling/kl"] == pytest.approx(1.1051709 - 1 - 0.1, abs=1e-5)
    assert cycles[0]["ratio_mean"] == pytest.approx(ratio, abs=1e-4)


def test_bfloat16_trains(world: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    grpo = module(world, samples=8, learning_rate=1e-2, warmup_steps=0, changes={"beta": 0.0})
    trainer(tmp_path, callbacks=[recorder], precision="bf16-mixed").fit(grpo, data(world, 12))
    rewards = [cycle["reward"] for cycle in recorder.cycles]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    assert recorder.cycles[0]["sampling/kl"] < 1e-2


def test_prompts_longer_than_the_context_are_refused_before_the_first_cycle(
    world: Path, tmp_path: Path
) -> None:
    long = [Prompt(id=f"t{i}", text=PROMPTS[0] * (100 * (i == 7) + 1), split="train") for i in range(8)]
    write_prompts(tmp_path / "prompts.jsonl", long)
    recorder = Recorder()
    with pytest.raises(PolicyError, match="shorten the prompt, or raise context"):
        trainer(tmp_path, callbacks=[recorder]).fit(module(world), data(tmp_path, 1))
    assert recorder.cycles == []


def test_refills_need_other_prompts(world: Path, tmp_path: Path) -> None:
    loader = data(world, 1)
    loader.setup()
    with pytest.raises(PolicyError, match="refills=1, but NoneType has no other prompts"):
        trainer(tmp_path).fit(module(world, refills=1), loader.train_dataloader())


def test_a_reward_of_another_vocabulary_is_refused_before_the_first_cycle(
    world: Path, tmp_path: Path
) -> None:
    codec = Codec(
        Schema.core(), Domain.from_json(DOMAIN | {"texts": {"positive": ["{prompt}"], "negative": [""]}})
    )
    small = SmallEncoder(width=8, layers=1, heads=1, text_vocabulary=256)
    RewardEnsemble.create(codec, PROMPTS, members=2, encoder=small).export(tmp_path / "reward")
    grpo = GRPOModule(str(world / "vocabulary"), str(tmp_path / "reward"))
    with pytest.raises(PolicyError, match="train both for one domain") as told:
        trainer(tmp_path).fit(grpo, data(world, 1))
    assert codec.fingerprint in str(told.value)
    assert small_codec().fingerprint in str(told.value)
