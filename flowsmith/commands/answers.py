"""What a command answers: an exit code, and text or JSON on standard output; progress goes to standard error."""

import json
import sys
from typing import Any

DONE, REFUSED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: it is so; it is not (an invalid flow, no picture); the question cannot be answered as put; Ctrl-C."""


def answer(content: dict[str, Any], text: str, as_json: bool) -> None:
    """Print an answer for a program or for a person."""
    print(json.dumps(content, indent=2, allow_nan=False) if as_json else text)


def say(line: str) -> None:
    """Tell a person what is going on, apart from the answer."""
    print(line, file=sys.stderr)
