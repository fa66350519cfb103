"""Flows drawn from the corpus at random: the designer that training data is collected with."""

import random
from collections.abc import Sequence
from functools import cached_property

from flowsmith.candidates import Candidate
from flowsmith.designers.protocol import DesignerError, candidate, image_seed, stable_hash
from flowsmith.flows import Domain, Flow, augment, load_corpus
from flowsmith.flows.schema_beside import schema_beside
from flowsmith.prompts import Prompt


class CorpusDesigner:
    """Draws for each prompt other flows of an augmented corpus.

    All flows of a prompt start from the same image noise: what makes one picture of a prompt better than another is
    mostly luck of the noise, and shared luck cancels in the differences that a reward ensemble is to learn (common
    random numbers).

    Args:
        flows: Folder of hand-written flows (templated API JSON).
        domain: YAML file of what may be chosen.
        size: Number of flows after augmentation, the hand-written ones included.
        seed: Of the augmentation.
        name: Column and table name.
    """

    def __init__(self, flows: str, domain: str, size: int = 240, seed: int = 0, name: str = "corpus") -> None:
        self.name = name
        self._flows, self._domain, self._size, self._seed = flows, domain, size, seed

    @cached_property
    def corpus(self) -> list[tuple[str, Flow]]:
        """(Name of the base flow, flow), hand-written ones first."""
        domain = Domain.from_yaml(self._domain)
        schema = domain.restrict(schema_beside(self._domain))
        return augment(
            load_corpus(self._flows, schema), domain, schema, random.Random(self._seed), self._size
        )

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Candidate]:
        """Draw flows without replacement for each prompt."""
        if samples > self._size:
            raise DesignerError(
                f"samples={samples}, size={self._size}: flows are drawn without replacement; ask for fewer samples"
            )
        proposed = []
        for prompt in prompts:
            rng = random.Random(stable_hash("corpus", prompt.id, seed))
            drawn = rng.sample(self.corpus, samples)
            for sample, (name, flow) in enumerate(drawn):
                record = candidate(self.name, prompt, sample, flow, seed, base_flow=name)
                record.seed = image_seed(prompt, 0, seed)
                proposed.append(record)
        return proposed
