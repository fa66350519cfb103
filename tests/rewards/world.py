"""A simulated world: what a flow scores for a prompt is a known function plus noise, so every claim has a truth.

Flows are the repository's hand-written ones and variants of them. Prompts differ in difficulty by more than flows do
within a prompt; which checkpoint, LoRA strength and guidance are best depends on the prompt's words.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from flowsmith.flows import Codec, Domain, Flow, Link, Node, Schema, augment, load_corpus
from flowsmith.prompts import Split
from flowsmith.scored_flows import ScoredFlow

MINIATURE = Path(__file__).parents[2] / "miniature"
DOMAIN = MINIATURE / "domain.yaml"
NOISE = 0.5
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "star", "triangle")
STYLES = ("", ", pencil drawing", ", poster")
TIMES = ("", ", at night", ", in the snow")


@cache
def codec() -> Codec:
    return Codec(Schema.core(), Domain.from_yaml(DOMAIN))


@cache
def corpus(count: int, seed: int = 0) -> tuple[tuple[str, Flow], ...]:
    """Return (base flow, flow): the hand-written flows, then variants of them."""
    base = load_corpus(MINIATURE / "flows", codec().schema)
    return tuple(augment(base, codec().domain, codec().schema, Random(seed), count))


@dataclass(frozen=True)
class Scene:
    """A prompt of the world.

    Attributes:
        text: What the user typed.
        difficulty: What every flow's score for it is shifted by; no word tells it.
    """

    text: str
    difficulty: float


@cache
def scenes(count: int, seed: int = 0) -> tuple[Scene, ...]:
    """Draw prompts; none repeats."""
    rng, found = Random(seed), dict[str, Scene]()
    while len(found) < count:
        objects = [f"{rng.choice(COLORS)} {rng.choice(SHAPES)}" for _ in range(2)]
        relation = rng.choice(["left of", "above"])
        what = f"a {objects[0]} {relation} a {objects[1]}" if rng.random() < 0.5 else f"a {objects[0]}"
        text = what + rng.choice(TIMES) + rng.choice(STYLES)
        found.setdefault(text, Scene(text, rng.gauss(0, 1)))
    return tuple(found.values())


def quality(scene: Scene, flow: Flow) -> float:
    """Return the score without noise."""
    value = scene.difficulty
    best_guidance = 5.0 if " a " in scene.text[1:] else 2.5
    samplers = [node for node in flow.nodes if node.class_type in ("KSampler", "KSamplerAdvanced")]
    steps = [_walked(node) for node in samplers]
    value -= 1.2 * math.exp(-sum(steps) / 8) + 0.2 * (len(samplers) - 1.5) ** 2
    value -= 0.3 * math.log(_number(samplers[-1].get("cfg")) / best_guidance) ** 2
    for node in flow.nodes:
        if node.class_type == "CheckpointLoaderSimple" and node.get("ckpt_name") == "mini_pencil":
            value += 0.8 if "pencil" in scene.text else -0.8
        elif node.class_type == "LoraLoader":
            strength = _number(node.get("strength_model"))
            value += 1.0 - 2 * (strength - 0.75) ** 2 if "poster" in scene.text else -0.8 * strength
        elif node.class_type == "CLIPTextEncode" and "sharp" in str(node.get("text")):
            value += 0.2
    return value


def _walked(node: Node) -> float:
    """Return how many steps of a whole way a node walks."""
    steps = _number(node.get("steps"))
    if node.class_type == "KSampler":
        return steps * _number(node.get("denoise"))
    return min(steps, _number(node.get("end_at_step"))) - _number(node.get("start_at_step"))


def _number(value: str | int | float | bool | Link | None) -> float:
    assert isinstance(value, int | float)
    return float(value)


def scored_flows(
    prompts: int, flows_per_prompt: int, *, flows: int = 240, seed: int = 0, noise: float = NOISE
) -> list[ScoredFlow]:
    """Render and judge, so to speak: every prompt with some flows of the corpus; a ninth of prompts validates."""
    rng, known = np.random.default_rng(seed), corpus(flows)
    rows = []
    for number, scene in enumerate(scenes(prompts)):
        split: Split = "validation" if number % 9 == 0 else "train"
        for index in rng.choice(len(known), flows_per_prompt, replace=False):
            base, flow = known[index]
            score = quality(scene, flow) + noise * float(rng.normal())
            rows.append(
                ScoredFlow(
                    sample_id=f"{number}-{index}",
                    prompt_id=f"p{number}",
                    prompt=scene.text,
                    split=split,
                    task="",
                    designer="corpus",
                    flow=json.dumps(flow.to_template(), separators=(",", ":")),
                    flow_key=flow.key,
                    base_flow=base,
                    seed=number,
                    renderer="simulated",
                    weights="none",
                    judges={"taste": 5 + 2 * score},
                    score=score,
                    seconds=0.1,
                )
            )
    return rows
