"""``flowsmith run``: one picture of one flow, on a ComfyUI server or in this process."""

import argparse
from typing import TYPE_CHECKING, Any

from flowsmith.commands.answers import DONE, REFUSED, answer
from flowsmith.commands.arguments import add_json

if TYPE_CHECKING:
    from flowsmith.execution import RenderTask
    from flowsmith.flows import Flow, Schema

_ABOUT = """\
Run a workflow for a prompt and keep the picture.

The file is a flow of a corpus (a template over {prompt}) or any workflow: JSON in API or editor's format, PNG, WebP.
Of somebody's workflow the prompt in it is replaced; docs/workflow-files.md tells which text that is.

Flows over the miniature's models do not run in ComfyUI: give --models miniature/weights for them."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="run a workflow for a prompt",
        description=_ABOUT,
        epilog="exit codes: 0 there is a picture, 1 the flow failed, 2 it cannot be run here",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="JSON, PNG or WebP")
    parser.add_argument("--prompt", required=True, help="what the picture is to show")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", metavar="URL", help="of a running ComfyUI, such as http://127.0.0.1:8188")
    where.add_argument(
        "--models", metavar="DIR", help="render in this process, with models in ComfyUI's folder names"
    )
    parser.add_argument("--device", default="cpu", help="with --models: where to render (default: cpu)")
    parser.add_argument("--seed", type=_seed, default=0, help="of the noise (default: 0)")
    parser.add_argument("--timeout", type=float, default=600.0, help="with --server: seconds (default: 600)")
    parser.add_argument(
        "--out", metavar="PNG", required=True, help="the picture; ComfyUI opens it as the flow that made it"
    )
    add_json(parser)
    parser.set_defaults(do=run)


def run(args: argparse.Namespace) -> int:
    """Render; see `main` for what is returned."""
    from flowsmith.commands.flow_file import read_flow
    from flowsmith.execution import RenderTask
    from flowsmith.flows.exchange import save_picture

    render, schema = _on_server(args) if args.server else _here(args)
    read = read_flow(args.file, schema)
    if args.server:
        _check_installed(read.flow, schema, args.file)
    result = render(RenderTask("run", read.flow, args.prompt, args.seed))
    content = {
        "file": args.file, "prompt": args.prompt, "seed": args.seed, "replaced": read.prompt,
        "seconds": result.seconds, "error": result.error, "out": None if result.image is None else args.out,
    }  # fmt: skip
    if result.image is None:
        answer(content, f"{args.file}: no picture; {result.error}", args.json)
        return REFUSED
    from PIL import Image

    picture = Image.fromarray(result.image.permute(1, 2, 0).contiguous().numpy())
    save_picture(args.out, read.flow, args.prompt, args.seed, schema, picture)
    lines = [f"{args.out}: {picture.width} x {picture.height}, seed {args.seed}, {result.seconds:.1f} s"]
    if not read.template:
        lines.append(
            f"  the prompt took the place of {read.prompt!r}" if read.prompt else "  no text was replaced"
        )
    answer(content, "\n".join([*lines, *(f"  note: {note}" for note in read.notes)]), args.json)
    return DONE


def _on_server(args: argparse.Namespace) -> tuple[Any, "Schema"]:
    from flowsmith.execution.comfyui import ComfyUIExecutor

    executor = ComfyUIExecutor([args.server], timeout=args.timeout, progress=not args.json)
    schema = executor.facts[0].schema

    def render(task: "RenderTask") -> Any:
        return next(iter(executor.render([task])))

    return render, schema


def _here(args: argparse.Namespace) -> tuple[Any, "Schema"]:
    from flowsmith.execution import ExecutionError, Executor, ModelLibrary
    from flowsmith.flows import Schema

    if not ModelLibrary(args.models).names("checkpoints"):
        raise ExecutionError(
            f"models={args.models}: holds no checkpoint; name a folder such as ComfyUI's models"
        )
    executor = Executor(args.models, device=args.device)

    def render(task: "RenderTask") -> Any:
        return next(iter(executor.render([task])))

    return render, Schema.core()


def _check_installed(flow: "Flow", schema: "Schema", source: str) -> None:
    """Raise unless the server has the files that a flow names; say so where it never can have them."""
    from flowsmith.commands.miniature_models import WHERE, MiniatureModelsError, miniature_models
    from flowsmith.flows import check, validate

    if (names := miniature_models([flow])) and validate(flow, schema):
        raise MiniatureModelsError(f"{source}: {', '.join(names)}: {WHERE}")
    check(flow, schema, source=source)


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**64:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 2**64 - 1")
    return seed
