"""What people say of a scene: varied wording, and the facts that the words commit to.

A caption may leave out colours, the relation or any of the looks; what it does state are its *facts*, and
the split of a caption follows from its facts alone. So a combination in the test split was never told in training,
in whatever words.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from flowsmith.prompts import Prompt, Split
from miniature.scenes import Group, Scene, sample_scene

Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
TASKS: tuple[Task, ...] = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

# What a picture looks like all over, beside what is on it.
LOOKS = ("setting", "style", "size", "texture")
_NUMBER = {2: "two", 3: "three"}
_RELATION = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_SETTING = {
    "day": ("by day", "in daylight", "on a bright day"),
    "dusk": ("at dusk", "in the dusk", "in grey dusk"),
    "night": ("at night", "in the night", "on a dark night"),
}
_STYLE_BEFORE = {
    "poster": ("a poster of", "poster of"),
    "pencil": ("a pencil drawing of", "pencil sketch of"),
}
_STYLE_AFTER = {"poster": ("poster", "poster style"), "pencil": ("pencil drawing", "pencil")}
_SIZE = {"small": ("small", "tiny"), "large": ("large", "big")}
_MIRROR = {"right": "left", "below": "above"}


@dataclass(frozen=True)
class Told:
    """A caption with its facts, null where unsaid.

    These are ``{"groups": [{shape, color, count}], relation, setting, style, size, texture}``.
    """

    text: str
    facts: dict[str, Any]

    @property
    def split(self) -> Split:
        """Return the split that these facts belong to: eight in ten train, one validation, one test."""
        return split_of(self.facts)


def split_of(facts: dict[str, Any]) -> Split:
    """Return the split of a set of facts, however it is worded ("a left of b" is "b right of a")."""
    groups, relation = list(facts["groups"]), facts["relation"]
    if relation in _MIRROR:
        groups, relation = groups[::-1], _MIRROR[relation]
    elif relation is None:
        groups.sort(key=lambda group: json.dumps(group, sort_keys=True))
    told = json.dumps([groups, relation, *(facts[look] for look in LOOKS)], sort_keys=True)
    bucket = hashlib.sha256(told.encode()).digest()[0] % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def tell(
    scene: Scene,
    rng: np.random.Generator,
    *,
    colors: bool = True,
    relation: bool = True,
    setting: bool = True,
    style: bool = True,
    size: bool = True,
    texture: bool = True,
) -> Told:
    """Word a scene; a False leaves that fact unsaid."""
    groups = list(scene.groups)
    place = scene.relation if relation else None
    if len(groups) == 2 and place is None and rng.random() < 0.5:
        groups.reverse()
    adjectives = [str(rng.choice(_SIZE[scene.size]))] if size else []
    adjectives += [scene.texture] if texture else []
    things = [_words(g, colors, adjectives) for g in groups]
    text = things[0]
    if len(groups) == 2:
        text += f" {rng.choice(_RELATION[place])} {things[1]}" if place else f" and {things[1]}"
    parts = [text]
    if setting:
        words = str(rng.choice(_SETTING[scene.setting]))
        parts = [f"{text} {words}"] if rng.random() < 0.5 else [text, words]
    if style and rng.random() < 0.5:
        parts[0] = f"{rng.choice(_STYLE_BEFORE[scene.style])} {parts[0]}"
    elif style:
        parts.append(str(rng.choice(_STYLE_AFTER[scene.style])))
    facts = {
        "groups": [
            {"shape": g.shape, "color": g.color if colors else None, "count": g.count} for g in groups
        ],
        "relation": place,
        "setting": scene.setting if setting else None,
        "style": scene.style if style else None,
        "size": scene.size if size else None,
        "texture": scene.texture if texture else None,
    }
    return Told(", ".join(parts), facts)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return the words of `tell_partly` alone."""
    return tell_partly(scene, rng).text


def sample_pair(rng: np.random.Generator, split: Split = "train") -> tuple[Scene, Told]:
    """Draw a scene and a caption whose facts belong to the split."""
    while True:
        scene = sample_scene(rng)
        told = tell_partly(scene, rng)
        if told.split == split:
            return scene, told


def sample_prompt(task: Task, number: int, split: Split, rng: np.random.Generator) -> Prompt:
    """Draw a prompt of one of GenEval's tasks whose facts belong to the split; it tells all looks."""
    while True:
        scene = _scene_for(task, rng)
        told = tell(scene, rng, colors=task in ("colors", "color_attr"), relation=task == "position")
        if told.split == split:
            return Prompt(f"{split}-{task}-{number:04d}", told.text, split, task, told.facts)


def tell_partly(scene: Scene, rng: np.random.Generator, unsaid: Collection[str] = ()) -> Told:
    """Word a scene as people do, now and then leaving something out, and the looks named in ``unsaid`` always."""
    said = rng.random(6)
    # Two unlike shapes can be told without colours; two like shapes cannot.
    unlike = len({g.shape for g in scene.groups}) == len(scene.groups)
    return tell(
        scene,
        rng,
        colors=not unlike or said[0] > 0.2,
        relation=said[1] > 0.3,
        setting="setting" not in unsaid and said[2] > 0.2,
        style="style" not in unsaid and said[3] > 0.1,
        size="size" not in unsaid and said[4] > 0.1,
        texture="texture" not in unsaid and said[5] > 0.1,
    )


def _scene_for(task: Task, rng: np.random.Generator) -> Scene:
    while True:
        scene = sample_scene(rng)
        groups, counts = scene.groups, [g.count for g in scene.groups]
        if task == "counting" and len(groups) == 1 and counts[0] > 1:
            return scene
        if (
            task == "colors" and len(groups) == 1
        ):  # of one to three like objects: colour is crossed with count
            return scene
        if task == "single_object" and len(groups) == 1:
            return replace(scene, groups=(Group(groups[0].shape, groups[0].color),), relation=None)
        if len(groups) == 2 and groups[0].shape != groups[1].shape and max(counts) == 1:
            if task in ("two_object", "position"):
                return scene
            if task == "color_attr" and groups[0].color != groups[1].color:
                return scene


def _words(group: Group, colors: bool, adjectives: list[str]) -> str:
    noun = " ".join([*adjectives, *([group.color] if colors else []), group.shape])
    return f"{_NUMBER[group.count]} {noun}s" if group.count > 1 else f"a {noun}"
