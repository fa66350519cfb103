"""The vocabulary stage: learns which flow belongs to which prompt, weighs pairs, hands over a policy."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from datamodules.prompt_flow_pairs import PairBatch
from datamodules.resumable_batches import ResumableBatches
from flowsmith.flows import GrammarError, random_flow
from flowsmith.policy import Policy, PolicyError, flow_logprobs, generate
from flowsmith.policy.pairs import Pair
from lightning_modules.vocabulary import VocabularyModule
from tests.lightning_modules.grpo_world import Recorder
from tests.lightning_modules.stopping import check_resumed_is_undisturbed
from tests.policy.world import BUDGET, PROMPTS, small_codec, small_tokenizer, write_text_model

SMALL: dict[str, Any] = {"budget": BUDGET, "hidden": 32, "layers": 2, "heads": 2, "learning_rate": 1e-2}


def one_flow_a_prompt() -> list[Pair]:
    rng = Random(0)
    flows = [random_flow(small_codec().domain, small_codec().schema, rng) for _ in PROMPTS]
    return [Pair(p, tuple(small_codec().encode(f))) for p, f in zip(PROMPTS, flows, strict=True)]


class FixedPairs(LightningDataModule):
    """Pairs given by hand, so many times over."""

    def __init__(self, pairs: list[Pair], times: int = 1, batch_size: int = 4) -> None:
        super().__init__()
        self.codec, self.tokenizer = small_codec(), small_tokenizer()
        self.pairs, self.times, self.batch_size = pairs, times, batch_size

    def train_dataloader(self) -> ResumableBatches[Pair, PairBatch]:
        return ResumableBatches(self, self.pairs * self.times, self.batch_size, PairBatch.of, 0)

    def val_dataloader(self) -> DataLoader[Any]:
        pairs: Any = self.pairs
        return DataLoader(pairs, self.batch_size, collate_fn=PairBatch.of)


def trainer_of(folder: Path, **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder,
        "gradient_clip_val": 1.0, "num_sanity_val_steps": 0,
    }  # fmt: skip
    return Trainer(**(quiet | settings))


def fit(module: VocabularyModule, data: FixedPairs, folder: Path) -> Trainer:
    trainer = trainer_of(folder)
    trainer.fit(module, datamodule=data)
    return trainer


def test_learns_which_flow_belongs_to_which_prompt(tmp_path: Path) -> None:
    pairs = one_flow_a_prompt()
    module = VocabularyModule(**SMALL, samples=3)
    trainer = fit(module, FixedPairs(pairs, times=150), tmp_path)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["val/loss"] < 0.05
    assert metrics["val/accuracy"] > 0.98
    assert metrics["val/valid"] == 1.0
    assert metrics["val/unique_flows"] == len({p.tokens for p in pairs})
    groups = generate(module.policy, PROMPTS, 5, seed=1, temperature=0.3)
    right = [r.flow_tokens == p.tokens for group, p in zip(groups, pairs, strict=True) for r in group]
    assert sum(right) >= 18


def test_loss_is_the_mean_over_free_tokens_of_what_sampling_would_say(tmp_path: Path) -> None:
    pairs = one_flow_a_prompt()
    module = VocabularyModule(**(SMALL | {"learning_rate": 0.0}), seed=3)
    trainer = fit(module, FixedPairs(pairs), tmp_path)
    policy = Policy.create(small_codec(), small_tokenizer(), BUDGET, hidden=32, layers=2, heads=2, seed=3)
    with torch.no_grad():
        logprobs, _, free = flow_logprobs(policy, [p.prompt for p in pairs], [p.tokens for p in pairs])
    expected = (-logprobs.sum() / free.sum()).item()
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)


def test_weights_decide_between_contradicting_pairs(tmp_path: Path) -> None:
    """Two flows for one prompt, one weighing nine times the other: sampled nine times as often."""
    rng = Random(0)
    drawn = {
        tuple(small_codec().encode(random_flow(small_codec().domain, small_codec().schema, rng)))
        for _ in range(30)
    }
    first, second = sorted(drawn, key=lambda tokens: (len(tokens), tokens))[
        :2
    ]  # short, so soon learned by heart
    pairs = [Pair(PROMPTS[0], first, 1.8), Pair(PROMPTS[0], second, 0.2)]
    module = VocabularyModule(**SMALL)
    fit(module, FixedPairs(pairs, times=150, batch_size=2), tmp_path)
    with torch.no_grad():
        logprobs, _, _ = flow_logprobs(module.policy, [PROMPTS[0]] * 2, [first, second])
    odds = (logprobs[0].sum() - logprobs[1].sum()).exp().item()
    assert 4 < odds < 20
    assert logprobs.sum(1).exp().sum() > 0.8


def test_seed_fixes_the_result(tmp_path: Path) -> None:
    ends: list[list[torch.Tensor]] = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed + len(ends))  # the global generator must not matter
        module = VocabularyModule(**SMALL, seed=seed)
        fit(module, FixedPairs(one_flow_a_prompt(), times=3), tmp_path)
        ends.append([p.detach() for p in module.policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(ends[0], ends[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ends[0], ends[2], strict=True))


def test_export_is_the_trained_policy(tmp_path: Path) -> None:
    module = VocabularyModule(**SMALL)
    fit(module, FixedPairs(one_flow_a_prompt(), times=3), tmp_path)
    module.export(tmp_path / "export")
    loaded = dict(Policy.load(tmp_path / "export").named_parameters())
    assert all(torch.equal(p, loaded[name]) for name, p in module.policy.named_parameters())


def test_a_hub_model_with_lora_goes_the_same_way(tmp_path: Path) -> None:
    pairs = one_flow_a_prompt()
    base = str(write_text_model(tmp_path / "base"))
    module = VocabularyModule(budget=BUDGET, base=base, lora_rank=8, learning_rate=2e-2)
    trainer = fit(module, FixedPairs(pairs, times=60), tmp_path)
    assert float(trainer.callback_metrics["val/accuracy"]) > 0.8
    module.export(tmp_path / "export")
    with torch.no_grad():
        logprobs = [
            flow_logprobs(p, [PROMPTS[0]], [pairs[0].tokens])[0]
            for p in (module.policy, Policy.load(tmp_path / "export"))
        ]
    assert torch.equal(*logprobs)


def test_a_checkpoint_of_an_adapter_leaves_the_base_out(tmp_path: Path) -> None:
    base = str(write_text_model(tmp_path / "base"))
    settings: dict[str, Any] = {"budget": BUDGET, "base": base, "lora_rank": 4, "learning_rate": 1e-2}

    def stage() -> tuple[VocabularyModule, FixedPairs]:
        torch.manual_seed(0)  # as seed_everything does; an adapter begins at random
        return VocabularyModule(**settings), FixedPairs(one_flow_a_prompt() * 3)

    check_resumed_is_undisturbed(stage, lambda **more: trainer_of(tmp_path, **more), tmp_path, 2)
    saved = torch.load(tmp_path / "stop.ckpt", weights_only=False)
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in saved["state_dict"])
    del saved["state_dict"][min(saved["state_dict"])]
    torch.save(saved, tmp_path / "less.ckpt")
    with pytest.raises(PolicyError, match=r"1 of \d+ trained tensors.*fresh run folder"):
        trainer_of(tmp_path).fit(
            VocabularyModule(**settings), FixedPairs(one_flow_a_prompt()), ckpt_path=tmp_path / "less.ckpt",
            weights_only=False,
        )  # fmt: skip


def test_gradient_checkpointing_changes_memory_alone(tmp_path: Path) -> None:
    ends = []
    for checkpointing in (False, True):
        module = VocabularyModule(**SMALL, gradient_checkpointing=checkpointing)
        fit(module, FixedPairs(one_flow_a_prompt(), times=3), tmp_path)
        ends.append([p.detach() for p in module.policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_pair_longer_than_the_budget_is_refused_before_training(tmp_path: Path) -> None:
    module = VocabularyModule(**(SMALL | {"budget": 24}))
    with pytest.raises(GrammarError):
        fit(module, FixedPairs(one_flow_a_prompt()), tmp_path)


@pytest.mark.parametrize(
    ("ends", "batches"),
    [
        ({"max_epochs": 2}, 3),  # in the first epoch of five batches
        ({"max_epochs": 2}, 5),  # after its last batch, before its validation
        ({"max_epochs": 3}, None),  # after its validation
        ({"max_epochs": 3}, 7),  # in the second epoch
        ({"max_epochs": -1, "max_steps": 12}, 7),
        ({"max_epochs": -1, "max_steps": 12}, 5),
        ({"max_epochs": -1, "max_steps": 12}, None),
        ({"max_epochs": 3, "limit_train_batches": 4}, 6),
    ],
)
def test_stopped_and_resumed_is_bit_for_bit_the_undisturbed_run(
    tmp_path: Path, ends: dict[str, Any], batches: int | None
) -> None:
    check_resumed_is_undisturbed(
        lambda: (VocabularyModule(**SMALL), FixedPairs(one_flow_a_prompt() * 5)),
        lambda **settings: trainer_of(tmp_path, **ends, **settings),
        tmp_path,
        batches,
    )


class DoubleVocabulary(VocabularyModule):
    """In double precision; spawned processes import it."""

    def configure_model(self) -> None:
        super().configure_model()
        self.policy.double()


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Two real gloo processes whose flows have unequally many free tokens: fp64 gradients, then the loss."""
    pairs = [
        Pair(p.prompt, p.tokens, w) for p, w in zip(one_flow_a_prompt() * 2, [0.5, 1.5] * 4, strict=True)
    ]
    results = []
    for processes in (1, 2):
        file = str(tmp_path / f"{processes}.pt")
        strategy: dict[str, Any] = (
            {"devices": 2, "strategy": "ddp_spawn"} if processes == 2 else {"devices": 1}
        )
        trainer = trainer_of(
            tmp_path, callbacks=[Recorder(file)], limit_val_batches=0, gradient_clip_val=None, **strategy
        )
        trainer.fit(DoubleVocabulary(**SMALL), datamodule=FixedPairs(pairs, batch_size=4 // processes))
        results.append(torch.load(file, weights_only=False))
    one, two = results
    assert len(one["gradients"]) == len(two["gradients"]) == 2
    torch.testing.assert_close(two["gradients"], one["gradients"], atol=1e-9, rtol=0)
    assert [c["train/loss"] for c in two["cycles"]] == pytest.approx([c["train/loss"] for c in one["cycles"]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 8}, "lora_rank=8, base=None.*give base, or set lora_rank=0"),
        ({"lora_rank": -1, "base": "x"}, "lora_rank=-1"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0.*0 or more"),
        ({"weight_decay": float("nan")}, "weight_decay=nan.*0 or more"),
        ({"warmup": 1.5}, "warmup=1.5.*from 0 to 1"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        VocabularyModule(**settings)
