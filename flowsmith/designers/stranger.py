"""The policy's flows, each written for another prompt: how much following the prompt is worth.

They are flows of the same policy for prompts of the same kind. So what GRPO scores more than this is what it gains by
writing a flow for the prompt at hand, and not one flow, or one mixture of flows, for all.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from flowsmith.candidates import Candidate
from flowsmith.designers.guided import GuidedDesigner
from flowsmith.designers.protocol import DesignerError, candidate, stable_hash
from flowsmith.policy import load_pair
from flowsmith.prompts import Prompt, read_prompts


class StrangerDesigner:
    """Samples flows for a stranger, another prompt of the same split, and proposes them for the prompt.

    Args:
        policy: GRPO's export, policy and reference.
        prompts: JSON lines of prompts, the strangers.
        temperature: Of sampling.
        name: Column and table name.
    """

    def __init__(
        self, policy: str, prompts: str, temperature: float = 1.0, name: str = "GRPO, for another prompt"
    ) -> None:
        self.name = name
        self._policy, self._path, self._temperature = Path(policy), Path(prompts), temperature

    @cached_property
    def policy(self) -> GuidedDesigner:
        """What writes the flows."""
        policy, reference = load_pair(self._policy / "policy", self._policy / "reference")
        return GuidedDesigner(policy, reference, 1.0, self._temperature)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """All strangers."""
        return read_prompts(self._path)

    def stranger(self, prompt: Prompt, seed: int) -> Prompt:
        """Return another prompt of the same split, which follows from (seed, prompt id).

        Raises:
            DesignerError: There is none.
        """
        others = [p for p in self.prompts if p.split == prompt.split and p.text != prompt.text]
        if not others:
            raise DesignerError(
                f"prompts={self._path}: {prompt.split} has no prompt but {prompt.id}; name a file with several"
            )
        return others[stable_hash("stranger", prompt.id, seed) % len(others)]

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Candidate]:
        """Propose the policy's flows for each prompt's stranger, with the noise that all designers have."""
        strangers = [self.stranger(prompt, seed) for prompt in prompts]
        each = list({stranger.id: stranger for stranger in strangers}.values())
        written = {c.sample_id: c for c in self.policy.propose(each, samples, seed)}
        proposed = []
        for prompt, stranger in zip(prompts, strangers, strict=True):
            for sample in range(samples):
                theirs = written[f"{self.policy.name}/{stranger.id}/{sample}"]
                record = candidate(self.name, prompt, sample, theirs.flow, seed)
                record.n_tokens = theirs.n_tokens
                proposed.append(record)
        return proposed
