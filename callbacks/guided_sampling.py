"""Samples flows from the language model over a list of guidance weights."""

from collections.abc import Sequence
from typing import Any

from lightning import LightningModule

from callbacks.candidate_callback import CallbackOrderError, CandidateCallback
from flowsmith.candidates import CandidateBatch


class GuidedSampling(CandidateCallback):
    """Adds ``samples`` flows a prompt for each weight; the module must have ``policy`` and ``reference``.

    Args:
        weights: w of l_reference + w (l_policy - l_reference); 0 is the vocabulary model, 1 the policy.
        samples: Flows a prompt and weight.
        temperature: Of sampling.
        seed: Of sampling and of the images' noise; equal seeds give all weights the same noise.
    """

    def __init__(
        self,
        weights: Sequence[float] = (0.0, 1.0, 1.5, 2.0),
        samples: int = 1,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if (
            not weights
            or len(set(weights)) < len(weights)
            or min(weights) < 0
            or samples < 1
            or temperature <= 0
        ):
            raise CallbackOrderError(
                f"weights={list(weights)}, samples={samples}, temperature={temperature}: "
                "use different weights >= 0, at least 1 sample, temperature > 0"
            )
        self.weights, self.samples = [float(w) for w in weights], samples
        self._temperature, self._seed = temperature, seed

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
            designer = GuidedDesigner(policy, reference, weight, self._temperature)
            proposed = designer.propose(batch.prompts, self.samples, self._seed)
            batch.candidates += [c for c in proposed if c.sample_id not in finished]
