"""``flowsmith validate``: is a workflow file a graph that an installation runs as it is meant?"""

import argparse
from typing import TYPE_CHECKING, Any

from flowsmith.commands.answers import DONE, REFUSED, answer
from flowsmith.commands.arguments import add_json, add_schema

if TYPE_CHECKING:
    from flowsmith.flows import FlowIssue

_ABOUT = """\
Check a workflow file against an installation, at least as strictly as ComfyUI's server does.

The file is JSON in API format or in the editor's format, or a PNG or WebP picture that holds a graph. A graph in API
format is checked as it stands; one in the editor's format as the editor would send it."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "validate",
        help="check a workflow file against an installation",
        description=_ABOUT,
        epilog="exit codes: 0 valid, 1 invalid, 2 the file or the schema cannot be read",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="JSON, PNG or WebP")
    add_schema(parser, required=True)
    parser.add_argument(
        "--template",
        action="store_true",
        help="the texts are templates over {prompt}, and seeds may be absent: what Flowsmith keeps in a corpus",
    )
    add_json(parser)
    parser.set_defaults(do=validate)


def validate(args: argparse.Namespace) -> int:
    """Check a file; see `main` for what is returned."""
    from flowsmith.commands.file_check import check_file
    from flowsmith.commands.miniature_models import WHERE, is_miniature
    from flowsmith.flows import Schema

    checked = check_file(args.file, Schema.load(args.schema), args.template)
    mini = sorted({str(issue.given) for issue in checked.issues if is_miniature(issue.given)})
    notes = [*checked.notes, *([f"{', '.join(mini)}: {WHERE}"] if mini else [])]
    lines = [f"{args.file}: {'invalid' if checked.issues else 'valid'} ({checked.form} format)"]
    lines += [f"  [{issue.type}] {issue.message}" for issue in checked.issues]
    lines += [f"  note: {note}" for note in notes]
    content = {
        "file": args.file,
        "valid": not checked.issues,
        "format": checked.form,
        "issues": [_plain(issue) for issue in checked.issues],
        "notes": notes,
    }
    answer(content, "\n".join(lines), args.json)
    return REFUSED if checked.issues else DONE


def _plain(issue: "FlowIssue") -> dict[str, Any]:
    from flowsmith.flows.issues import shown

    return {
        "type": issue.type,
        "node": issue.node,
        "input": issue.input,
        "given": shown(issue.given),  # may be of any kind and size, or no number
        "allowed": issue.allowed,
        "nearest": issue.nearest,
        "message": issue.message,
    }
