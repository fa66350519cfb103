"""The miniature's prompts: how many of each split there are, and how they are drawn."""

from pathlib import Path

import numpy as np

from flowsmith.prompts import Prompt, Split, write_prompts
from miniature.captions import TASKS, sample_prompt

PROMPTS: dict[Split, int] = {"train": 160, "validation": 20, "test": 25}  # of each of the six tasks


def write_prompt_set(path: Path, seed: int) -> None:
    """Write the prompts of all splits as JSON lines; no two share their text."""
    rng = np.random.default_rng(seed + 30_000)
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for split, number in PROMPTS.items():
        drawn: dict[str, list[Prompt]] = {}
        for task in TASKS:
            drawn[task] = []
            while len(drawn[task]) < number:
                prompt = sample_prompt(task, len(drawn[task]), split, rng)
                if prompt.text not in seen:
                    seen.add(prompt.text)
                    drawn[task].append(prompt)
        # Tasks take turns, so that the first n prompts of a split are of all tasks.
        prompts += [prompt for turn in zip(*drawn.values(), strict=True) for prompt in turn]
    write_prompts(path, prompts)
