"""GenEval's published prompts, ``evaluation_metadata.jsonl``: 553 lines of tag, include, exclude and prompt."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsmith.metrics.geneval.metric import TASKS
from flowsmith.metrics.geneval.names import CLASSES, COLOURS, RELATIONS
from flowsmith.prompts import Prompt, PromptError


def is_geneval_file(path: Path | str) -> bool:
    """Return whether a file's first line is one of GenEval's."""
    try:
        with Path(path).open(encoding="utf-8") as stream:
            line = json.loads(stream.readline())
    except (OSError, ValueError):
        return False
    return isinstance(line, dict) and {"tag", "include", "prompt"} <= line.keys()


def read_geneval_prompts(path: Path | str) -> list[Prompt]:
    """Read the file; a prompt's id is its line, as the folders of the authors' code are numbered (``00000``, ...).

    Raises:
        PromptError: The file is missing, or a line asks for what no rule knows.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"prompts={path}: cannot be read ({error}); name GenEval's .jsonl file") from error
    prompts = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            text, task = entry["prompt"], entry["tag"]
            facts = {key: entry[key] for key in ("include", "exclude") if key in entry}
            wrong = _wrong(facts)
            if task not in TASKS:
                wrong = f"tag={task!r}; use {', '.join(TASKS)}"
            if not isinstance(text, str):
                wrong = f"prompt={text!r}; give a text in quotes"
        except (ValueError, KeyError, TypeError) as error:
            wrong = f"no line of GenEval's ({type(error).__name__}: {error}); give tag, include and prompt"
        if wrong:
            raise PromptError(f"{path}:{number + 1}: {wrong}")
        prompts.append(Prompt(f"{number:05d}", text, "test", task, facts))
    return prompts


def _wrong(facts: Mapping[str, Any]) -> str | None:
    """Return what of the facts no rule knows."""
    for clause, entries in facts.items():
        for index, entry in enumerate(entries):
            if entry["class"] not in CLASSES:
                return f"class={entry['class']!r} is none of GenEval's names of COCO's classes, as 'computer mouse'"
            if not isinstance(entry["count"], int) or entry["count"] < 1:
                return f"count={entry['count']!r}; give a whole number from 1"
            if "color" in entry and entry["color"] not in COLOURS:
                return f"color={entry['color']!r}; use {', '.join(COLOURS)}"
            if "position" in entry:
                relation, target = entry["position"]
                if relation not in RELATIONS:
                    return f"position={relation!r}; use {', '.join(RELATIONS)}"
                if clause != "include" or not 0 <= target < index:
                    return f"position={entry['position']!r} refers to no earlier entry of include"
    return None
