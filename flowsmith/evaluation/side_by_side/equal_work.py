"""Do both compute the same? The losses of both on the same rollouts, while both train on them."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from flowsmith.evaluation.side_by_side.ours import Rollouts, Trainer
from flowsmith.evaluation.side_by_side.trl_trainer import trl_trainer
from flowsmith.evaluation.side_by_side.work import SMALL, Work, load_model, write_model

# As high as keeps training stable: at no distance from the reference, all losses are 0. What is wider or deeper than
# the small model moves further in a step.
_LEARNING_RATE, _SIZE = 3e-3, SMALL.hidden * SMALL.layers


@dataclass(frozen=True)
class Agreement:
    """Losses and gradient norms before clipping of both, one a step."""

    our_losses: list[float]
    their_losses: list[float]
    our_norms: list[float]
    their_norms: list[float]

    @property
    def loss_difference(self) -> float:
        """The greatest difference of two losses."""
        return max(abs(a - b) for a, b in zip(self.our_losses, self.their_losses, strict=True))

    @property
    def norm_difference(self) -> float:
        """The greatest relative difference of two gradient norms."""
        return max(abs(a - b) / b for a, b in zip(self.our_norms, self.their_norms, strict=True))


def agreement(work: Work, scratch: Path, device: torch.device, steps: int = 4) -> Agreement:
    """Train both from the same weights on the same random completions.

    Args:
        work: How much a step does; its learning rate is raised, so that losses and their differences show.
        scratch: Where both may write.
        device: Where ours computes; TRL chooses for itself.
        steps: Optimizer steps.
    """
    work = replace(work, learning_rate=_LEARNING_RATE / max(1.0, work.hidden * work.layers / _SIZE) ** 2)
    generator = torch.Generator().manual_seed(0)
    shape = (work.sequences, work.new_tokens)
    rollouts = Rollouts(
        [prompt for prompt in work.prompt_ids() for _ in range(work.samples)],
        torch.randint(work.vocabulary, shape, generator=generator).tolist(),
        None,  # as in TRL, each step's own log-probabilities stand for those of sampling
    )
    folder = write_model(work, scratch / "equal", spread=3.0)
    theirs = trl_trainer(work, folder, steps, rollouts=rollouts, scratch=scratch / "trl")
    theirs.train()
    log = [entry for entry in theirs.state.log_history if "loss" in entry]
    ours = Trainer(work, load_model(folder, work, device), load_model(folder, work, device))
    losses, norms = [], []
    for _ in range(steps):
        ours.learn(rollouts)
        losses.append(ours.loss)
        norms.append(ours.grad_norm)
    return Agreement(losses, [float(e["loss"]) for e in log], norms, [float(e["grad_norm"]) for e in log])
