"""One cycle of GRPO in double precision, on any number of processes and in micro-batches of any size.

At module level, so that other processes can import it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tests.lightning_modules.grpo_world import Recorder, data, module, trainer
from tests.processes import ended, forked, group

Case = Mapping[str, Any]
"""Settings of the module."""


class Learned(NamedTuple):
    """What a run learned from and how: tokens of every sample by prompt, the gradient of every update."""

    tokens: dict[str, tuple[tuple[int, ...], ...]]
    gradients: list[list[Tensor]]


class _Samples(Callback):
    """Keeps the tokens of every cycle."""

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[tuple[int, ...], ...]] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        cycle: Any = pl_module
        for sampled in cycle.completions.groups:
            self.tokens[f"{cycle.cycle}/{sampled.prompt_id}"] = sampled.tokens


def learned(world: Path, folder: Path, cases: Sequence[Case], processes: int) -> list[Learned]:
    """Run each case for two cycles of 8 prompts x 3 samples; return what rank 0 knows of each."""
    file = folder / f"learned-{processes}.pt"
    ranks = [forked(_run, world, folder, file, cases, each) for each in group(processes)]
    assert [ended(rank, 900) for rank in ranks] == [0] * processes
    return [Learned(*case) for case in torch.load(file, weights_only=False)]


def _run(
    world: Path, folder: Path, file: Path, cases: Sequence[Case], environment: Mapping[str, str]
) -> None:
    os.environ.update(environment)
    processes = int(environment["WORLD_SIZE"])
    results = []
    for case in cases:
        # Lightning takes the size away when a run is over.
        os.environ.update(environment)
        recorder, samples = Recorder(), _Samples()
        several: dict[str, Any] = {"devices": processes, "strategy": "ddp" if processes > 1 else "auto"}
        engine = trainer(folder, callbacks=[recorder, samples], **several)
        common = {"double": True, "samples": 3, "learning_rate": 1e-3, "max_grad_norm": 1e9}
        engine.fit(module(world, **{**common, **case}), data(world, 2, batch_prompts=8))
        results.append((samples.tokens, recorder.gradients))
    if environment["LOCAL_RANK"] == "0":
        torch.save(results, file)
