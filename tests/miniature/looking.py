"""What tests of the checker share: pictures of known scenes, and what is true and untrue of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from miniature.scenes import COLORS, SHAPES, Scene, render, sample_scene

Picture = NDArray[np.uint8]


def pictures(number: int, seed: int, side: int = 64) -> list[tuple[Scene, Picture]]:
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng) for _ in range(number)]
    return [(scene, render(scene, side, rng)) for scene in scenes]


def facts_of(scene: Scene) -> dict[str, Any]:
    return {**vars(scene), "groups": [dict(vars(group)) for group in scene.groups]}


def near_misses(scene: Scene, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Facts of which exactly one is untrue, by what that is."""
    facts = facts_of(scene)
    k = int(rng.integers(len(scene.groups)))

    def changed(**group: Any) -> dict[str, Any]:
        return facts | {"groups": [g | group if i == k else g for i, g in enumerate(facts["groups"])]}

    count = scene.groups[k].count
    wrong = {
        "color": changed(color=next(c for c in COLORS if c not in {g.color for g in scene.groups})),
        "shape": changed(shape=next(s for s in SHAPES if s not in {g.shape for g in scene.groups})),
        # Of two groups it suffices that what was named is there, so fewer would be true as well.
        "count": changed(count=count - 1 if len(scene.groups) == 1 and count > 2 else count + 1),
        "size": facts | {"size": {"small": "large", "large": "small"}[scene.size]},
        "texture": facts | {"texture": {"plain": "striped", "striped": "plain"}[scene.texture]},
    }
    if scene.relation:
        swap = {"left": "right", "right": "left", "above": "below", "below": "above"}
        wrong["relation"] = facts | {"relation": swap[scene.relation]}
    return wrong
