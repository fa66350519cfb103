"""The miniature's prompts: how many of each split there are, and how they are drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from flowsmith.prompts import Prompt, Split, write_prompts
from miniature.captions import TASKS, Task, sample_prompt, tell
from miniature.scenes import Group, sample_scene

PROMPTS: dict[Split, int] = {"train": 160, "validation": 20, "test": 25}  # of each of the six tasks


def write_prompt_set(path: Path, seed: int) -> None:
    """Write the prompts of all splits as JSON lines; no two share their text."""
    rng, colors_rng = np.random.default_rng(seed + 30_000), np.random.default_rng(seed + 31_000)
    prompts: list[Prompt] = []
    for split, number in PROMPTS.items():
        drawn: dict[str, list[Prompt]] = {}
        for task in TASKS:
            if task == "colors":
                _skip_one_colored(number, split, rng)
            drawn[task] = _distinct(task, number, split, colors_rng if task == "colors" else rng)
        # Tasks take turns, so that the first n prompts of a split are of all tasks.
        prompts += [prompt for turn in zip(*drawn.values(), strict=True) for prompt in turn]
    write_prompts(path, prompts)


def _distinct(task: Task, number: int, split: Split, rng: np.random.Generator) -> list[Prompt]:
    """Draw prompts of different texts; those of other tasks and splits differ by what they state."""
    drawn: dict[str, Prompt] = {}
    while len(drawn) < number:
        prompt = sample_prompt(task, len(drawn), split, rng)
        drawn.setdefault(prompt.text, prompt)
    return list(drawn.values())


def _skip_one_colored(number: int, split: Split, rng: np.random.Generator) -> None:
    """Draw what the task colors was while it had one object only.

    The tasks and splits that follow in the stream keep so the prompts that the shipped collection was rendered for.
    """
    texts: set[str] = set()
    while len(texts) < number:
        scene = sample_scene(rng)
        if len(scene.groups) == 1:
            one = Group(scene.groups[0].shape, scene.groups[0].color)
            told = tell(replace(scene, groups=(one,), relation=None), rng)
            if told.split == split:
                texts.add(told.text)
