"""Prompts, and what is known of the picture that each asks for."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from flowsmith.errors import FlowsmithError
from flowsmith.files import atomic_write

Split = Literal["train", "validation", "test"]


class PromptError(FlowsmithError):
    """A prompt file cannot be read."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a set.

    Attributes:
        id: Unique name; random numbers of a sample derive from it, never from a position in a list.
        text: What the user typed.
        split: Which stage may see it.
        task: GenEval's task, or "" where no checker applies.
        facts: What must be in the picture, for the checker of the world that the prompt belongs to.
    """

    id: str
    text: str
    split: Split = "test"
    task: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)


def read_prompts(path: Path | str, split: Split | None = None) -> list[Prompt]:
    """Read a JSON-lines file of prompts, one object a line; keep one split if it is named.

    Raises:
        PromptError: The file is missing, a line is no prompt, or two prompts share an id.
    """
    path = Path(path)
    try:
        # Not splitlines: what JSON leaves as it is within a text may be a line's end to Unicode (U+2028).
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            f"prompts={path}: cannot be read ({error}); name a UTF-8 .jsonl file of prompts"
        ) from error
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = Prompt(**json.loads(line))
        except (TypeError, ValueError, RecursionError) as error:
            raise PromptError(
                f"{path}:{number}: not a prompt ({error}); give id, text, split, task, facts"
            ) from error
        for name in ("id", "text", "task"):
            if not _is_text(getattr(prompt, name)):
                raise PromptError(
                    f"{path}:{number}: {name}={getattr(prompt, name)!r}; give a text in quotes, without lone "
                    "surrogates"
                )
        if not isinstance(prompt.facts, Mapping):
            raise PromptError(f"{path}:{number}: facts={prompt.facts!r}; give an object, or leave it out")
        if prompt.split not in get_args(Split):
            raise PromptError(
                f"{path}:{number}: split={prompt.split!r}; use one of {', '.join(get_args(Split))}"
            )
        if prompt.id in prompts:
            raise PromptError(f"{path}:{number}: id={prompt.id!r} stands twice; give every prompt its own")
        prompts[prompt.id] = prompt
    return [p for p in prompts.values() if split in (None, p.split)]


def _is_text(value: object) -> bool:
    """Return whether a value is a text that can be written: half of a surrogate pair is not in any encoding."""
    try:
        return isinstance(value, str) and value.encode("utf-8") is not None
    except UnicodeEncodeError:
        return False


def write_prompts(path: Path | str, prompts: list[Prompt]) -> None:
    """Write prompts as JSON lines, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for prompt in prompts:
            stream.write(json.dumps(asdict(prompt), ensure_ascii=False) + "\n")
