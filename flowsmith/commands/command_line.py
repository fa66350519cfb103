"""The command line of ``flowsmith``: from arguments to an exit code."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from flowsmith.commands import corpus_build, design, plan, run, validate
from flowsmith.commands.answers import BAD_INPUT, INTERRUPTED, answer, say
from flowsmith.errors import FlowsmithError

_ABOUT = """\
ComfyUI flows: check them, learn from them, run them, and have them written for a prompt.

docs/your-comfyui.md walks from your own installation to a designer that was trained on it."""
_CODES = (
    "exit codes: 0 done or valid; 1 invalid, or nothing came of it; 2 the question cannot be answered as put"
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        "flowsmith",
        description=_ABOUT,
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    validate.add(commands)
    corpus = commands.add_parser("corpus", help="make a corpus of flows from a folder of workflows")
    corpus_build.add(corpus.add_subparsers(dest="corpus_command", required=True, metavar="COMMAND"))
    plan.add(commands)
    design.add(commands)
    run.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Those after the command's name; the process's own if None.

    Returns:
        The exit code. What cannot be parsed exits with 2, as argparse does.
    """
    args = parser().parse_args(arguments)
    do: Callable[[argparse.Namespace], int] = args.do
    try:
        return do(args)
    except FlowsmithError as error:
        if getattr(args, "json", False):
            answer({"error": {"type": type(error).__name__, "message": str(error)}}, "", True)
        say(f"flowsmith: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("flowsmith: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the answer has seen enough; nothing more can be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
