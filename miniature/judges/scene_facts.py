"""Near misses: a scene with one fact changed, and whether words are true of a scene."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from miniature.captions import LOOKS
from miniature.scenes import (
    COLORS,
    MAX_OBJECTS,
    SETTINGS,
    SHAPES,
    SIZES,
    STYLES,
    TEXTURES,
    Relation,
    Scene,
)

Change = Literal["color", "shape", "count", "relation", "setting", "style", "size", "texture"]
CHANGES: tuple[Change, ...] = get_args(Change)
OPPOSITE: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}
_LOOKS = {"setting": SETTINGS, "style": STYLES, "size": SIZES, "texture": TEXTURES}


def change(scene: Scene, kind: Change, rng: np.random.Generator) -> Scene | None:
    """Return the scene with one fact of this kind changed or, with two groups, swapped; None if it has none.

    A relation is turned into its opposite, which can never hold too; left and above can.
    """
    if kind == "relation":
        return replace(scene, relation=OPPOSITE[scene.relation]) if scene.relation else None
    if kind in _LOOKS:
        return replace(scene, **{kind: _other(rng, _LOOKS[kind], getattr(scene, kind))})
    options = []
    for index, group in enumerate(scene.groups):
        rest = sum(g.count for g in scene.groups) - group.count
        values = {"color": COLORS, "shape": SHAPES, "count": range(1, MAX_OBJECTS - rest + 1)}[kind]
        for value in values:
            if value != getattr(group, kind):
                groups = list(scene.groups)
                groups[index] = replace(group, **{kind: value})
                options.append(tuple(groups))
    if len(scene.groups) == 2:
        first, second = scene.groups
        mine, theirs = getattr(first, kind), getattr(second, kind)
        if mine != theirs:  # as likely as all single changes together: what binds facts to objects
            swapped = (replace(first, **{kind: theirs}), replace(second, **{kind: mine}))
            options += [swapped] * max(1, len(options))
    options = [groups for groups in options if len({(g.shape, g.color) for g in groups}) == len(groups)]
    return replace(scene, groups=options[int(rng.integers(len(options)))]) if options else None


def holds(scene: Scene, facts: Mapping[str, Any]) -> bool | None:
    """Say whether a caption's facts are true of a scene; None if the picture alone can tell.

    That is so where the words state a relation along the other axis than the scene does. A look that is null or
    missing is unsaid.
    """
    if any(facts.get(look) not in (None, getattr(scene, look)) for look in LOOKS):
        return False
    told = facts["groups"]
    views = [(scene.groups, scene.relation)]
    if scene.relation:
        views.append((scene.groups[::-1], OPPOSITE[scene.relation]))
    verdict: bool | None = False
    for groups, relation in views:
        if len(groups) == len(told) and all(
            t["shape"] == g.shape and t["color"] in (None, g.color) and t["count"] == g.count
            for t, g in zip(told, groups, strict=True)
        ):
            if facts["relation"] in (None, relation):
                return True
            if relation and facts["relation"] != OPPOSITE[relation]:
                verdict = None
    return verdict


def _other(rng: np.random.Generator, options: tuple[Any, ...], value: Any) -> Any:
    rest = [option for option in options if option != value]
    return rest[int(rng.integers(len(rest)))]
