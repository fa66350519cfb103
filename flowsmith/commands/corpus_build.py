"""``flowsmith corpus build``: a corpus out of a folder of workflows, for one installation."""

import argparse
from collections.abc import Iterable
from typing import Any

from flowsmith.commands.answers import DONE, REFUSED, answer
from flowsmith.commands.arguments import add_json, add_schema, positive

_ABOUT = """\
Make a corpus of flows from a folder of workflows (JSON in both of ComfyUI's formats, PNG, WebP).

Kept are text-to-image flows whose nodes are installed: no video, no control image, no picture to start from, no text
that would be in every picture, no node class that fewer than --min-uses flows hold. Equal flows count once. Model
files that are not installed give way to installed ones of the same family. Variants swap models, LoRAs, samplers,
guidance and steps, within the family that they fit."""
_WRITES = """\
writes DIR/flows/*.json    the flows and their variants, as templates over {prompt}
       DIR/schema.json     what is installed, of the classes and models that they use
       DIR/domain.yaml     what a designer that is trained on them may choose
       DIR/models.yaml     the family of each model file; edit it and start again: what you write stays
       DIR/report.json     what was kept, dropped and why, and the vocabulary; report.txt for reading
       DIR/imports/        what was read so far; a second start goes on from there

exit codes: 0 there is a corpus, 1 no flow was kept, 2 something cannot be read"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "build",
        help="make a corpus from a folder of workflows",
        description=_ABOUT,
        epilog=_WRITES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", dest="source", metavar="FOLDER", required=True, help="of workflow files")
    add_schema(parser, required=True)
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the corpus")
    parser.add_argument(
        "--models", metavar="DIR", help="ComfyUI's models folder: families are read off the files' headers"
    )
    parser.add_argument(
        "--min-uses", type=positive, default=2, metavar="N", help="of a node class, in flows (default: 2)"
    )
    parser.add_argument(
        "--size",
        type=positive,
        default=0,
        metavar="N",
        help="flows in all (default: eight times those kept)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the variants (default: 0)")
    parser.add_argument(
        "--family",
        metavar="NAME",
        help="keep flows whose models are all of one family, such as sdxl (default: any)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_json(parser)
    parser.set_defaults(do=build)


def build(args: argparse.Namespace) -> int:
    """Make the corpus; see `main` for what is returned."""
    from tqdm import tqdm

    from flowsmith.flows import Schema
    from flowsmith.flows.building.build import Settings, build_corpus
    from flowsmith.flows.building.report import text_of

    def watch(items: Iterable[Any], name: str) -> Iterable[Any]:
        bar: Iterable[Any] = tqdm(list(items), desc=name, disable=args.quiet or None)
        return bar

    server = args.schema if args.schema.lower().startswith(("http://", "https://")) else None
    report = build_corpus(
        args.source, Schema.load(args.schema), args.out,
        Settings(args.min_uses, args.size, args.seed, args.family),
        models_folder=args.models, server=server, watch=watch,
    )  # fmt: skip
    summary = text_of(report).split("\n\n")[0]
    answer(report, f"{summary}\nwritten to {args.out}; report.txt tells of each file", args.json)
    return DONE if report["kept"] else REFUSED
