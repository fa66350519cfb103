"""One flow for every prompt: what most people do."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from flowsmith.candidates import Candidate
from flowsmith.designers.protocol import DesignerError, candidate
from flowsmith.flows import Domain, Flow
from flowsmith.flows.schema_beside import schema_beside
from flowsmith.prompts import Prompt


class FixedDesigner:
    """Always proposes the flow of one file.

    Args:
        flow: JSON file, templated API format.
        domain: YAML file of what may be chosen; the flow must be valid there.
        name: Column and table name.
    """

    def __init__(self, flow: str, domain: str, name: str = "default flow") -> None:
        self.name = name
        self._path, self._domain = Path(flow), domain

    @cached_property
    def flow(self) -> Flow:
        """The flow that is always proposed."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            raise DesignerError(
                f"flow={self._path}: cannot be read ({error}); name a JSON file of a flow"
            ) from error
        return Flow.from_template(text, Domain.from_yaml(self._domain).restrict(schema_beside(self._domain)))

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Candidate]:
        """Propose the one flow, with another noise per sample."""
        return [candidate(self.name, p, i, self.flow, seed) for p in prompts for i in range(samples)]
