"""Flows sampled from the language model, guided away from its vocabulary stage.

l = l_reference + w (l_policy - l_reference): w = 0 is the vocabulary model, w = 1 the policy, w > 1 goes on along the
path from the one to the other, as classifier-free guidance does (arXiv 2207.12598). The path can be walked with the
weights of the models instead of their logits.
"""

from collections.abc import Sequence
from typing import Literal

from flowsmith.candidates import Candidate
from flowsmith.designers.protocol import DesignerError, candidate, stable_hash
from flowsmith.policy import Policy, Rollout, generate
from flowsmith.policy.guidance import Schedule
from flowsmith.policy.interpolation import interpolating
from flowsmith.prompts import Prompt

Path = Literal["logits", "weights"]


def weight_name(weight: float, path: Path = "logits", schedule: Schedule | None = None) -> str:
    """Return the designer's name in tables: "vocabulary", "GRPO", "GRPO w=1.5" or "GRPO weights w=1.5"."""
    if schedule is not None:
        return f"GRPO w={weight:g} ({schedule})"
    end = {0.0: "vocabulary", 1.0: "GRPO"}.get(weight)
    return end or f"GRPO {'weights ' if path == 'weights' else ''}w={weight:g}"


class GuidedDesigner:
    """Samples flows at one guidance weight.

    Args:
        policy: The trained policy.
        reference: The policy after vocabulary training.
        weight: w above, >= 0.
        temperature: Of sampling.
        path: What is extrapolated: the two models' logits, or their weights (w = 0 and 1 are the same on both).
        schedule: How w changes over the tokens of a flow; None keeps it. Of logits only.

    Raises:
        DesignerError: A schedule for weights, which are one model for all tokens.
    """

    def __init__(
        self,
        policy: Policy,
        reference: Policy,
        weight: float,
        temperature: float = 1.0,
        path: Path = "logits",
        schedule: Schedule | None = None,
    ) -> None:
        if path == "weights" and schedule is not None:
            raise DesignerError(
                f"path=weights, schedule={schedule}: interpolated weights are one model for the whole flow; use "
                "path=logits, or no schedule"
            )
        self.name = weight_name(weight, path, schedule)
        self._policy, self._reference, self._weight = policy, reference, weight
        self._temperature, self._path, self._schedule = temperature, path, schedule

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Candidate]:
        """Sample flows; random numbers do not depend on the weight, so weights differ by what they do alone."""
        proposed = []
        for prompt, group in zip(prompts, self._sample(prompts, samples, seed), strict=True):
            for sample, rollout in enumerate(group):
                record = candidate(self.name, prompt, sample, rollout.flow, seed, guidance=self._weight)
                record.n_tokens = len(rollout.flow_tokens)
                proposed.append(record)
        return proposed

    def _sample(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[list[Rollout]]:
        texts, names = [prompt.text for prompt in prompts], [prompt.id for prompt in prompts]
        stream = stable_hash("flows", seed) >> 2
        if self._path == "weights":
            with interpolating(self._reference, self._policy, self._weight) as between:
                return generate(
                    between, texts, samples, seed=stream, temperature=self._temperature, sample_ids=names
                )
        return generate(
            self._policy,
            texts,
            samples,
            seed=stream,
            temperature=self._temperature,
            reference=self._reference,
            guidance=self._weight,
            schedule=self._schedule,
            sample_ids=names,
        )
