"""What GRPO's tests run on: a small exported policy, prompts, a reward that can be computed by hand.

At module level, so that spawned processes can import it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.prompts import Prompts
from flowsmith.flows import Flow
from flowsmith.prompts import Prompt, write_prompts
from lightning_modules.grpo import GRPOModule
from tests.policy.world import PROMPTS, exact_norms, small_policy

TIMED = ("time/", "time_share/", "step_time", "tokens_per_second")
"""How the names of logged figures begin that differ from run to run."""


class StepsReward:
    """Steps of all passes / 20: known for every flow, different within a group."""

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        values = [sum(float(str(n.get("steps") or 0)) for n in flow.nodes) / 20 for flow in flows]
        return torch.tensor(values), torch.full((len(flows),), 0.25)


class ConstantReward:
    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        return torch.full((len(flows),), 0.1), torch.zeros(len(flows))


class HolesReward(StepsReward):
    """No number for flows whose steps are a multiple of 3."""

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        mean, doubt = super().predict(prompts, flows)
        return mean.masked_fill((mean * 20).round() % 3 == 0, torch.nan), doubt


class NoReward:
    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        return torch.full((len(flows),), torch.nan), torch.zeros(len(flows))


class EvenPromptsReward(StepsReward):
    """All the same for prompts with an odd number at their end."""

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        mean, doubt = super().predict(prompts, flows)
        odd = torch.tensor([int(prompt.split()[-1]) % 2 == 1 for prompt in prompts])
        return mean.masked_fill(odd, 0.5), doubt


class TestedGRPO(GRPOModule):
    """GRPO with a known reward, in double precision where asked."""

    __test__ = False

    def __init__(
        self, *args: Any, reward_function: Any = None, double: bool = False, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.ensemble = reward_function or StepsReward()
        self._double = double

    def configure_model(self) -> None:
        super().configure_model()
        if self._double:
            self.policy.double()
            self.reference.double()
            for network in (self.policy, self.reference):
                exact_norms(network)
            if "average" in self._modules:
                self.average.double()


class Recorder(Callback):
    """Keeps what each cycle logged, and each gradient; rank 0 writes them to a file if one is named."""

    def __init__(self, file: str | None = None) -> None:
        self.cycles: list[dict[str, float]] = []
        self.gradients: list[list[Tensor]] = []
        self.outputs: list[Any] = []
        self.file = file

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.gradients.append([p.grad.clone() for p in pl_module.parameters() if p.grad is not None])

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.cycles.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.outputs.append(outputs)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.file is not None and trainer.is_global_zero:
            torch.save({"gradients": self.gradients, "cycles": self.cycles}, self.file)


def write_world(folder: Path) -> Path:
    """Write ``vocabulary`` (an export) and ``prompts.jsonl`` (8 for training, 3 for validation)."""
    small_policy(spread=2.0).export(folder / "vocabulary")
    training = [Prompt(id=f"t{i}", text=f"{PROMPTS[i % 4]} {i}", split="train") for i in range(8)]
    validation = [Prompt(id=f"v{i}", text=PROMPTS[i], split="validation") for i in range(3)]
    write_prompts(folder / "prompts.jsonl", training + validation)
    return folder


def module(folder: Path, **settings: Any) -> TestedGRPO:
    common: dict[str, Any] = {"vocabulary": str(folder / "vocabulary"), "reward": "none", "samples": 4}
    return TestedGRPO(**(common | settings))


def data(folder: Path, cycles: int = 4, **settings: Any) -> Prompts:
    return Prompts(str(folder / "prompts.jsonl"), cycles=cycles, **({"batch_prompts": 4} | settings))


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": folder,
    }
    return Trainer(**(quiet | settings))


def parameters(grpo: GRPOModule) -> dict[str, Tensor]:
    """Return copies of what the policy consists of."""
    return {name: p.detach().clone() for name, p in grpo.policy.named_parameters()}
