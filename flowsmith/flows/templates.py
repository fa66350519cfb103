"""Texts of a flow are templates: ``{prompt}`` stands for the user's prompt, ``{{`` and ``}}`` for braces.

Nothing else has a meaning, nothing is evaluated, and filling is one pass over the template: what a user
types is never looked at, so a prompt that itself holds ``{prompt}``, braces or ComfyUI's weight syntax comes
out as typed.
"""

import re
from functools import lru_cache
from typing import Literal

from flowsmith.errors import FlowsmithError

_TOKENS = re.compile(r"\{\{|\}\}|\{prompt\}|[{}]")
_MEANING = {"{{": "{", "}}": "}"}


class TemplateError(FlowsmithError):
    """A text is no template."""


def escape(text: str) -> str:
    """Return the template that stands for exactly ``text``."""
    return text.replace("{", "{{").replace("}", "}}")


@lru_cache(maxsize=4096)
def _parts(template: str) -> tuple[str | None, ...]:
    """Split a template into literal pieces and None for each place of the prompt."""
    parts: list[str | None] = []
    end = 0
    for match in _TOKENS.finditer(template):
        parts.append(template[end : match.start()])
        end = match.end()
        if match.group() == "{prompt}":
            parts.append(None)
        elif match.group() in _MEANING:
            parts.append(_MEANING[match.group()])
        else:
            raise TemplateError(
                f"text={template!r}: a single {match.group()!r} at character {match.start()} has no meaning; "
                "write {prompt} for the user's prompt, {{ and }} for plain braces"
            )
    parts.append(template[end:])
    return tuple(parts)


def fill(template: str, prompt: str) -> str:
    """Put the prompt into a template, literally.

    Raises:
        TemplateError: The template holds a single brace.
    """
    return "".join(prompt if part is None else part for part in _parts(template))


def has_prompt(template: str) -> bool:
    """Return whether the template has a place for the prompt."""
    return None in _parts(template)


def template_of(
    text: str, prompt: str | None, role: Literal["positive", "negative"] | None = "positive"
) -> str:
    """Turn a literal text into a template; the prompt, where it stands as whole words, becomes its place.

    ``fill(template_of(text, prompt), prompt) == text`` always holds. Negative texts stay literal.
    """
    if not prompt or role == "negative":
        return escape(text)
    standing = re.compile(rf"(?<!\w){re.escape(prompt)}(?!\w)")
    return "{prompt}".join(escape(piece) for piece in standing.split(text))
