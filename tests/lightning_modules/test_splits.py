"""However a cycle is split over processes and micro-batches, it samples the same and has one gradient."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from flowsmith.objectives.presets import Preset
from tests.lightning_modules.grpo_world import write_world
from tests.lightning_modules.splits import Learned, learned

# Sequences in one forward pass: gradients of an update accumulate over 24, 12, 3 or one of them.
MICRO_BATCHES: tuple[int | None, ...] = (None, 8, 2, 1)
SETTINGS: list[dict[str, Any]] = [
    *(
        {"objective": name} for name in get_args(Preset) if name != "bnpo"
    ),  # whose means are those of its parts
    {"changes": {"advantage": "batch", "beta": 0.1, "entropy_bonus": 0.01}},
    {"changes": {"beta": 0.1, "kl": "k1", "kl_in": "reward", "top_entropy": 0.4, "mask_truncated": True}},
    {"refills": 2, "replay": 0.5, "reference": "ema", "changes": {"beta": 0.1}},
    {"epochs": 2, "minibatches": 4, "gradient_checkpointing": True},
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def cases(settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [settings | {"micro_batch": size, "micro_batch_tokens": None} for size in MICRO_BATCHES]


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: str(settings.get("objective", settings)))
def test_one_gradient_and_the_same_tokens(world: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """One process with 8 prompts, two with 4; fp64."""
    runs: list[Learned] = []
    for processes in (1, 2):
        runs += learned(world, tmp_path, cases(settings), processes)
    first = runs[0]
    assert len(first.tokens) >= 16
    assert len(first.gradients) == 2 * settings.get("epochs", 1) * settings.get("minibatches", 1)
    assert any(gradient.abs().max() > 1e-6 for gradient in first.gradients[0])
    for run in runs[1:]:
        assert run.tokens == first.tokens
        torch.testing.assert_close(run.gradients, first.gradients, atol=1e-9, rtol=0)


@pytest.mark.slow
def test_bnpo_is_the_exception_by_definition(world: Path, tmp_path: Path) -> None:
    one = learned(world, tmp_path, cases({"objective": "bnpo"}), 1)
    whole, halved = one[0].gradients[0], one[1].gradients[0]
    assert max(float((a - b).abs().max()) for a, b in zip(whole, halved, strict=True)) > 1e-6
