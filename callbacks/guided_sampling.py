"""Samples flows from the language model over a list of guidance weights."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning import LightningModule

from callbacks.candidate_callback import CallbackOrderError, CandidateCallback
from flowsmith.candidates import CandidateBatch
from flowsmith.policy.guidance import Schedule


class GuidedSampling(CandidateCallback):
    """Adds ``samples`` flows a prompt for each weight; the module must have ``policy`` and ``reference``.

    Args:
        weights: w of l_reference + w (l_policy - l_reference); 0 is the vocabulary model, 1 the policy.
        samples: Flows a prompt and weight; None is the module's number (1 if it has none).
        temperature: Of sampling.
        seed: Of sampling and of the images' noise; None is the module's (0 if it has none), so that guided flows
            share their noise with those of the module's designers.
        path: What w extrapolates, the two models' logits or their weights.
        schedule: How w changes over the tokens of a flow, such as ``flowsmith.policy.LinearSchedule``; None keeps
            it. Of logits only.
    """

    def __init__(
        self,
        weights: Sequence[float] = (0.0, 1.0, 1.5, 2.0),
        samples: int | None = None,
        temperature: float = 1.0,
        seed: int | None = None,
        path: Literal["logits", "weights"] = "logits",
        schedule: Schedule | None = None,
    ) -> None:
        if (
            not weights
            or len(set(weights)) < len(weights)
            or min(weights) < 0
            or (samples is not None and samples < 1)
            or temperature <= 0
        ):
            raise CallbackOrderError(
                f"weights={list(weights)}, samples={samples}, temperature={temperature}: "
                "use different weights >= 0, at least 1 sample, temperature > 0"
            )
        if path == "weights" and schedule is not None:
            raise CallbackOrderError(
                f"path=weights, schedule={schedule}: interpolated weights are one model for the whole flow; use "
                "path: logits, or no schedule"
            )
        self._path, self._schedule = path, schedule
        self.weights = [float(w) for w in weights]
        self._samples, self._temperature, self._seed = samples, temperature, seed

    def samples_of(self, module: LightningModule) -> int:
        """Return how many flows a prompt and weight are sampled with a module."""
        return int(getattr(module, "samples", 1)) if self._samples is None else self._samples

    def seed_of(self, module: LightningModule) -> int:
        """Return the seed that is used with a module."""
        return int(getattr(module, "seed", 0)) if self._seed is None else self._seed

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Sample flows for the batch's prompts, those apart that a restarted run already has."""
        from flowsmith.designers.guided import GuidedDesigner

        holder: Any = module
        policy, reference = getattr(holder, "policy", None), getattr(holder, "reference", None)
        if policy is None or reference is None:
            raise CallbackOrderError(
                "GuidedSampling needs a policy and its reference, and this module has none: "
                "set model.policy to GRPO's export, or remove the callback"
            )
        finished: frozenset[str] = getattr(holder, "finished", frozenset())
        for weight in self.weights:
            designer = GuidedDesigner(
                policy, reference, weight, self._temperature, self._path, self._schedule
            )
            proposed = designer.propose(batch.prompts, self.samples_of(module), self.seed_of(module))
            batch.candidates += [c for c in proposed if c.sample_id not in finished]
