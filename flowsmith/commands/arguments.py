"""Arguments that several commands share."""

import argparse
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="answer in JSON on standard output")


def add_schema(parser: argparse.ArgumentParser, **kwargs: Any) -> None:
    """Add ``--schema``."""
    parser.add_argument(
        "--schema",
        metavar="URL_OR_FILE",
        help="what is installed: the address of a running ComfyUI, or a file with its /object_info",
        **kwargs,
    )


def positive(text: str) -> int:
    """Read a whole number of 1 or more; for ``type=``."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def non_negative(text: str) -> float:
    """Read a number of 0 or more, not infinite; for ``type=``."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of 0 or more")
    return number
