"""The first half of a cycle: flows and their rewards, of all processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from lightning import LightningModule

from flowsmith.policy import Policy, PolicyError, derived_seed
from flowsmith.policy.generator import Generator
from flowsmith.policy.groups import Group, judged
from flowsmith.policy.phases import PhaseClock
from flowsmith.policy.refill import sampled_with_refills
from flowsmith.policy.reward import Reward, predicted
from flowsmith.prompts import Prompt
from lightning_modules.collective import gathered_objects


class _Prompts(Protocol):
    """What refills need of the datamodule."""

    def spare_prompts(self, cycle: int, attempt: int) -> list[Prompt]:
        """Return this process's prompts that may step in, one for each of its prompts in the cycle."""


@dataclass(frozen=True)
class CycleSampling:
    """Samples groups as functions of (seed, cycle, attempt, prompt, sample).

    Attributes:
        module: Of which process; its trainer has the prompts.
        policy: Who writes.
        reward: What the flows are worth.
        generator: Who samples for the policy.
        samples: Flows a prompt.
        temperature: Of sampling.
        doubt_penalty: Lambda of mean - lambda x doubt.
        refills: Attempts to replace groups whose rewards are all equal.
        seed: Of all samples.
    """

    module: LightningModule
    policy: Policy
    reward: Reward
    generator: Generator
    samples: int
    temperature: float
    doubt_penalty: float
    refills: int
    seed: int

    def __call__(self, prompts: Sequence[Prompt], cycle: int, clock: PhaseClock) -> list[list[Group]]:
        """Return for each of the cycle's prompts, of all processes, its own group and those that stepped in.

        Args:
            prompts: This process's: of n processes, process r has the prompts r, r + n, ... of the cycle.
            cycle: Which.
            clock: Counts the time.
        """

        def sample(prompts: Sequence[Prompt], attempt: int) -> list[Group]:
            texts, names = [p.text for p in prompts], [p.id for p in prompts]
            seed = derived_seed(self.seed, "cycle", cycle, *(("refill", attempt) if attempt else ()))
            with clock("rollout"):
                rollouts = self.generator.generate(
                    self.policy,
                    texts,
                    self.samples,
                    seed=seed,
                    temperature=self.temperature,
                    sample_ids=names,
                )
            with clock("reward"):
                mean, doubt = predicted(self.reward, texts, rollouts)
            return judged(prompts, rollouts, mean, doubt, self.doubt_penalty, cycle, attempt)

        def spare(attempt: int) -> list[Prompt]:
            data = cast(_Prompts, cast(Any, self.module.trainer).datamodule)
            return data.spare_prompts(cycle, attempt)

        shares = gathered_objects(self.module, sampled_with_refills(sample, prompts, spare, self.refills))
        return [tries for row in zip(*shares, strict=True) for tries in row]


def check_prompts(policy: Policy, data: Any, refills: int) -> None:
    """Refuse at the door what would fail in some later cycle.

    Args:
        policy: Who reads the prompts.
        data: The datamodule, or None.
        refills: Attempts that need other prompts.

    Raises:
        PolicyError: A prompt is too long, or there is nothing to refill with.
    """
    if refills and not hasattr(data, "spare_prompts"):
        raise PolicyError(
            f"refills={refills}, but {type(data).__name__} has no other prompts to step in; use data of class Prompts, "
            "or refills=0"
        )
    for name in ("train_prompts", "validation_prompts"):
        policy.encode_prompts([prompt.text for prompt in getattr(data, name, [])])
