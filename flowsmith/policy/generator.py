"""Who serves rollouts: this process, or any engine that can say which tokens it sampled and how likely they were."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flowsmith.policy.model import Policy
from flowsmith.policy.noise import Name
from flowsmith.policy.rollout import Rollout
from flowsmith.policy.sampling import generate


class Generator(Protocol):
    """Samples flows for GRPO.

    An engine of its own (a server, another runtime) copies the policy's weights when it is called: they have
    changed since the last cycle. It must keep to ``policy.grammar``; `Rollout.from_tokens` checks that it did
    and fills in the rest. Its log-probabilities are its own: what they differ from those of training is the
    mismatch that GRPO logs.
    """

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[str],
        samples: int,
        *,
        seed: int,
        temperature: float = 1.0,
        sample_ids: Sequence[Name] | None = None,
    ) -> list[list[Rollout]]:
        """Return ``samples`` rollouts for each prompt, in order.

        Args:
            policy: Who writes, with its current weights.
            prompts: For what; any text.
            samples: How many for each.
            seed: Of the random numbers.
            temperature: Divides the logits, > 0.
            sample_ids: A name per prompt that its random numbers derive from; its text if not given.
        """


@dataclass(frozen=True)
class LocalGenerator:
    """Samples with the policy itself, in this process.

    Attributes:
        batch_size: Sequences computed at once; changes memory and speed, not the result.
    """

    batch_size: int = 256

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[str],
        samples: int,
        *,
        seed: int,
        temperature: float = 1.0,
        sample_ids: Sequence[Name] | None = None,
    ) -> list[list[Rollout]]:
        """Return ``samples`` rollouts for each prompt: `flowsmith.policy.sampling.generate`."""
        return generate(
            policy,
            prompts,
            samples,
            seed=seed,
            temperature=temperature,
            sample_ids=sample_ids,
            batch_size=self.batch_size,
        )
