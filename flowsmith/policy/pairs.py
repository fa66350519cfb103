"""Prompt-flow pairs: what vocabulary training reads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowsmith.flows import Codec, Flow
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.noise import uniforms
from flowsmith.prompts import Prompt


@dataclass(frozen=True)
class Pair:
    """One example.

    Attributes:
        prompt: The text.
        tokens: The flow in codec ids.
        weight: Of its loss, >= 0; 1 on average.
    """

    prompt: str
    tokens: tuple[int, ...]
    weight: float = 1.0


def scored_pairs(rows: Sequence[dict[str, Any]], codec: Codec, score_weight: float = 0.0) -> list[Pair]:
    """Turn rendered rows of scored flows into pairs, each (prompt, flow) once, with its mean score.

    Args:
        rows: With the columns prompt, flow, flow_key, score, status.
        codec: Encodes the flows.
        score_weight: A pair weighs ``exp(score_weight * z)``, z its score in standard deviations; 0: all
            alike.

    Raises:
        PolicyError: Scores are asked for and missing.
        FlowsmithError: A flow cannot be read, or lies outside of the codec's domain.
    """
    scores: dict[tuple[str, str], list[float]] = {}
    flows: dict[str, tuple[int, ...]] = {}
    for row in rows:
        if row["status"] != "ok":
            continue
        if row["score"] is None and score_weight != 0:
            raise PolicyError(
                f"score_weight={score_weight}, but rows have no score; judge them, or set score_weight=0"
            )
        scores.setdefault((row["prompt"], row["flow_key"]), []).append(row["score"] or 0.0)
        if row["flow_key"] not in flows:
            flow = Flow.from_template(row["flow"], codec.schema)
            flows[row["flow_key"]] = tuple(codec.encode(flow))
    means = [math.fsum(s) / len(s) for s in scores.values()]
    weights = _weights(means, score_weight)
    return [Pair(prompt, flows[key], w) for (prompt, key), w in zip(scores, weights, strict=True)]


def _weights(scores: list[float], strength: float) -> list[float]:
    """Return exp(strength * standard score), scaled to mean 1."""
    if strength == 0 or len(scores) < 2:
        return [1.0] * len(scores)
    mean = math.fsum(scores) / len(scores)
    deviation = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / len(scores)) or 1.0
    raw = [math.exp(strength * (s - mean) / deviation) for s in scores]
    return [w * len(raw) / math.fsum(raw) for w in raw]


def corpus_pairs(
    flows: Sequence[Flow], prompts: Sequence[Prompt], count: int, codec: Codec, seed: int
) -> list[Pair]:
    """Draw pairs of any prompt with any flow; pair i depends on the seed and i alone.

    Raises:
        PolicyError: There is nothing to draw from.
    """
    if not flows or not prompts:
        raise PolicyError(
            f"{len(flows)} flows and {len(prompts)} prompts: a pair needs one of each; name files with some"
        )
    tokens = [tuple(codec.encode(flow)) for flow in flows]
    draws = uniforms(2 * count, seed, "pairs").reshape(count, 2)
    return [
        Pair(prompts[int(a * len(prompts))].text, tokens[int(b * len(tokens))]) for a, b in draws.tolist()
    ]
