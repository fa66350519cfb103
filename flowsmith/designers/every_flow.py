"""Every flow of a folder for every prompt: the dense block on which a world's fairness is measured."""

from collections.abc import Sequence
from functools import cached_property

from flowsmith.candidates import Candidate
from flowsmith.designers.protocol import candidate, image_seed
from flowsmith.flows import Domain, Flow, load_corpus
from flowsmith.flows.schema_beside import schema_beside
from flowsmith.prompts import Prompt


class EveryFlowDesigner:
    """Proposes all flows of a folder, each with the same few seeds of a prompt.

    Args:
        flows: Folder of hand-written flows (templated API JSON).
        domain: YAML file of what may be chosen.
        name: Column and table name.
    """

    def __init__(self, flows: str, domain: str, name: str = "every flow") -> None:
        self.name = name
        self._flows, self._domain = flows, domain

    @cached_property
    def flows(self) -> dict[str, Flow]:
        """Flows by file name."""
        return load_corpus(self._flows, Domain.from_yaml(self._domain).restrict(schema_beside(self._domain)))

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Candidate]:
        """Propose every flow ``samples`` times; flows of one prompt and sample share their noise."""
        proposed = []
        for prompt in prompts:
            for place, (name, flow) in enumerate(self.flows.items()):
                for sample in range(samples):
                    record = candidate(
                        self.name, prompt, place * samples + sample, flow, seed, base_flow=name
                    )
                    record.seed = image_seed(prompt, sample, seed)
                    proposed.append(record)
        return proposed
