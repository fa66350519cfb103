"""Simulated worlds whose answer is known: scores of prompts x flows x seeds."""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowsmith.flows import Flow
from flowsmith.scored_flows import ScoredFlow

Array = NDArray[np.float64]


def world(
    seed: int,
    shape: tuple[int, int, int] = (60, 12, 4),
    *,
    interaction: float = 0.0,
    flow: float = 0.0,
    noise: float = 1.0,
    prompt: float = 0.5,
    common: float = 0.3,
) -> tuple[Array, Array]:
    """Return scores [P, F, S] and the expected scores [P, F] behind them, prompts' own level left out.

    Args:
        seed: Of the draw.
        shape: P, F, S.
        interaction: Standard deviation of what is particular to prompt and flow.
        flow: That of flows' own level.
        noise: That of the noise of one image.
        prompt: That of prompts' own level.
        common: That of what a seed does to all flows of its prompt.
    """
    rng = np.random.default_rng(seed)
    p, f, s = shape
    expected = rng.normal(0, flow, (1, f)) + rng.normal(0, interaction, (p, f))
    own = rng.normal(0, prompt, (p, 1, 1)) + rng.normal(0, common, (p, 1, s))
    return expected[:, :, None] + own + rng.normal(0, noise, shape), expected


def rows_of(
    scores: Array, flows: Sequence[Flow], prompts: Sequence[str], tasks: Sequence[str], failed: str = ""
) -> list[ScoredFlow]:
    """Return a block's rows, of seeds that differ from prompt to prompt; the sample named ``failed`` failed."""
    return [
        ScoredFlow(
            sample_id=name, prompt_id=prompt, prompt="x", split="test", task=task, designer="dense",
            flow=json.dumps(flow.to_template()), flow_key=flow.key, base_flow=f"flow {f}", seed=1000 * p + s,
            renderer="1", weights="w", judges={} if name == failed else {"clip": float(scores[p, f, s])},
            score=None if name == failed else float(scores[p, f, s]), seconds=0.1,
            status="failed" if name == failed else "ok", error="boom" if name == failed else None,
        )
        for p, (prompt, task) in enumerate(zip(prompts, tasks, strict=True))
        for f, flow in enumerate(flows)
        for s in range(scores.shape[2])
        for name in [f"{prompt}/{f}/{s}"]
    ]  # fmt: skip
