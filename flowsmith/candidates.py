"""The typed record that designers, executor and judges hand on: one flow for one prompt, and what came of it."""

from dataclasses import dataclass, field

from torch import Tensor

from flowsmith.flows import Flow
from flowsmith.prompts import Prompt


@dataclass
class Candidate:
    """One proposed flow; callbacks fill the later fields in their order (flow, image, judges, score).

    Attributes:
        sample_id: Unique name, a function of designer, prompt and sample number.
        prompt: The prompt it was proposed for.
        flow: The proposed flow.
        designer: Name of what proposed it.
        seed: Seed of the first sampling node.
        guidance: Weight w of guided sampling, where it was used.
        n_tokens: Length of the flow in tokens.
        base_flow: Name of the hand-written flow it descends from, or "".
        predicted_mean: The ensemble's mean, in standard deviations of score, where it was asked.
        predicted_std: The ensemble's doubt, same unit.
        image: uint8, 3 x height x width; None until rendered, or if rendering failed.
        error: Why there is no image, or none that could be judged.
        seconds: Time of rendering, shared evenly within a batch.
        judges: Value per judge.
        score: Standardised weighted sum of the judges.
    """

    sample_id: str
    prompt: Prompt
    flow: Flow
    designer: str
    seed: int
    guidance: float | None = None
    n_tokens: int = 0
    base_flow: str = ""
    predicted_mean: float | None = None
    predicted_std: float | None = None
    image: Tensor | None = None
    error: str | None = None
    seconds: float | None = None
    judges: dict[str, float] = field(default_factory=dict)
    score: float | None = None

    def fail(self, error: str) -> None:
        """Note why nothing came of it; what was there of it is dropped."""
        self.image, self.error, self.score = None, error, None
        self.judges = {}


@dataclass
class CandidateBatch:
    """What ``validation_step`` and ``predict_step`` return, and callbacks fill in their listed order.

    Attributes:
        prompts: The prompts of the batch.
        candidates: Flows proposed for them, by whichever designers ran so far.
    """

    prompts: list[Prompt]
    candidates: list[Candidate] = field(default_factory=list)
