"""For each prompt, the known flow that the reward ensemble likes best: what GRPO must beat to be worth training."""

from collections.abc import Sequence
from functools import cached_property

import torch

from flowsmith.candidates import Candidate
from flowsmith.designers.known import KnownFlow, known_flows
from flowsmith.designers.protocol import candidate
from flowsmith.prompts import Prompt
from flowsmith.rewards import RewardEnsemble


class SurrogateArgMaxDesigner:
    """Proposes arg max over the training flows of mean - lambda x std.

    Args:
        reward: Export of the reward ensemble.
        scored_flows: File or folder of scored flows; its training flows are the choices.
        domain: YAML file of what may be chosen.
        doubt_penalty: Lambda, as in GRPO.
        name: Column and table name.
    """

    def __init__(
        self,
        reward: str,
        scored_flows: str,
        domain: str,
        doubt_penalty: float = 1.0,
        name: str = "surrogate arg-max",
    ) -> None:
        self.name = name
        self._reward, self._sources, self._doubt_penalty = reward, (scored_flows, domain), doubt_penalty

    @cached_property
    def ensemble(self) -> RewardEnsemble:
        """The judge of flows."""
        return RewardEnsemble.load(self._reward)

    @cached_property
    def choices(self) -> list[KnownFlow]:
        """What can be proposed."""
        return known_flows(*self._sources)

    @torch.inference_mode()
    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Candidate]:
        """Propose each prompt's best known flow, with another noise per sample."""
        flows = [known.flow for known in self.choices]
        proposed = []
        for prompt in prompts:
            mean, std = self.ensemble.predict([prompt.text] * len(flows), flows)
            best = int(torch.argmax(mean - self._doubt_penalty * std))
            for sample in range(samples):
                chosen = self.choices[best]
                record = candidate(self.name, prompt, sample, chosen.flow, seed, base_flow=chosen.base_flow)
                record.predicted_mean, record.predicted_std = float(mean[best]), float(std[best])
                proposed.append(record)
        return proposed
