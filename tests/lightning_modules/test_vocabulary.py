"""The vocabulary stage: learns which flow belongs to which prompt, weighs pairs, hands over a policy."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from datamodules.prompt_flow_pairs import PairBatch, SeededSampler
from flowsmith.flows import GrammarError, random_flow
from flowsmith.policy import Policy, flow_logprobs, generate
from flowsmith.policy.pairs import Pair
from lightning_modules.vocabulary import VocabularyModule
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

    def train_dataloader(self) -> DataLoader[Any]:
        pairs: Any = self.pairs * self.times
        sampler = SeededSampler(len(pairs), 0)
        return DataLoader(pairs, self.batch_size, sampler=sampler, collate_fn=PairBatch.of)

    def val_dataloader(self) -> DataLoader[Any]:
        pairs: Any = self.pairs
        return DataLoader(pairs, self.batch_size, collate_fn=PairBatch.of)


def fit(module: VocabularyModule, data: FixedPairs, folder: Path) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, gradient_clip_val=1.0, num_sanity_val_steps=0,
    )  # fmt: skip
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
    first, second = (pair.tokens for pair in one_flow_a_prompt()[:2])
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


def test_a_pair_longer_than_the_budget_is_refused_before_training(tmp_path: Path) -> None:
    module = VocabularyModule(**(SMALL | {"budget": 24}))
    with pytest.raises(GrammarError):
        fit(module, FixedPairs(one_flow_a_prompt()), tmp_path)
