"""Flows sampled from the language model, guided away from its vocabulary stage.

l = l_reference + w (l_policy - l_reference): w = 0 is the vocabulary model, w = 1 the policy, w > 1 goes on along the
path from the one to the other, as classifier-free guidance does (arXiv 2207.12598).
"""

from collections.abc import Sequence

from flowsmith.candidates import Candidate
from flowsmith.designers.protocol import candidate, stable_hash
from flowsmith.policy import Policy, generate
from flowsmith.prompts import Prompt


def weight_name(weight: float) -> str:
    """Return the designer's name in tables: "vocabulary", "GRPO", or "GRPO w=1.5"."""
    return {0.0: "vocabulary", 1.0: "GRPO"}.get(weight, f"GRPO w={weight:g}")


class GuidedDesigner:
    """Samples flows at one guidance weight.

    Args:
        policy: The trained policy.
        reference: The policy after vocabulary training.
        weight: w above, >= 0.
        temperature: Of sampling.
    """

    def __init__(self, policy: Policy, reference: Policy, weight: float, temperature: float = 1.0) -> None:
        self.name = weight_name(weight)
        self._policy, self._reference, self._weight = policy, reference, weight
        self._temperature = temperature

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Candidate]:
        """Sample flows; random numbers do not depend on the weight, so weights differ by what they do alone."""
        groups = generate(
            self._policy,
            [prompt.text for prompt in prompts],
            samples,
            seed=stable_hash("flows", seed) >> 2,
            temperature=self._temperature,
            reference=self._reference,
            guidance=self._weight,
            sample_ids=[prompt.id for prompt in prompts],
        )
        proposed = []
        for prompt, group in zip(prompts, groups, strict=True):
            for sample, rollout in enumerate(group):
                record = candidate(self.name, prompt, sample, rollout.flow, seed, guidance=self._weight)
                record.n_tokens = len(rollout.flow_tokens)
                proposed.append(record)
        return proposed
