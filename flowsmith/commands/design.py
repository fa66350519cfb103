"""``flowsmith design``: flows for a prompt, written by a trained designer, within what the user fixes."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsmith.commands.answers import DONE, answer
from flowsmith.commands.arguments import add_json, non_negative, positive

if TYPE_CHECKING:
    from flowsmith.flows import Flow, Schema
    from flowsmith.policy import Policy

_ABOUT = """\
Have flows written for a prompt.

The designer is what training exported: GRPO's export (with guidance from its vocabulary stage), or the vocabulary
stage's own. What you fix is kept by the grammar: nothing else can be written. Only what the designer learned a token
for can be fixed; the rest is refused, with the reason.

A designer that was trained on the miniature writes flows over the miniature's models; they do not run in ComfyUI."""
_ENDINGS = (".json", ".png")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "design",
        help="have flows written for a prompt",
        description=_ABOUT,
        epilog="exit codes: 0 done, 2 the export cannot be used, or what you fix cannot be kept",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prompt", help="what the picture is to show")
    parser.add_argument(
        "--export", metavar="DIR", default="runs/grpo/export", help="of training (default: runs/grpo/export)"
    )
    parser.add_argument(
        "--guidance", type=non_negative, default=None, metavar="W",
        help="0: vocabulary stage, 1: GRPO, above: beyond it (default: 1.5; without GRPO: none)",
    )  # fmt: skip
    parser.add_argument("--n", type=positive, default=1, help="flows (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default: 0)")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="of the sampling, above 0 (default: 1)"
    )
    parser.add_argument(
        "--out", metavar="FILE", required=True,
        help="flow.json: API format; flow.png: to drag into ComfyUI; several flows get numbers",
    )  # fmt: skip
    fixed = parser.add_argument_group("what you fix")
    fixed.add_argument(
        "--resolution", type=_resolution, metavar="WxH", help="of the latent that flows start from"
    )
    fixed.add_argument(
        "--only-models", nargs="+", metavar="FILE", help="name no other model file, of any kind"
    )
    fixed.add_argument("--only-nodes", nargs="+", metavar="CLASS", help="use no other node class")
    fixed.add_argument("--max-steps", type=positive, metavar="N", help="of each sampling node")
    fixed.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="NODE.input=value",
        help="wherever the node stands; repeatable",
    )
    add_json(parser)
    parser.set_defaults(do=design)


def design(args: argparse.Namespace) -> int:
    """Design; see `main` for what is returned."""
    from flowsmith.commands.miniature_models import WHERE, miniature_models
    from flowsmith.designers.guided import GuidedDesigner
    from flowsmith.designers.wishes import WishError, Wishes
    from flowsmith.flows.exchange import save_api, save_picture
    from flowsmith.prompts import Prompt

    out = Path(args.out)
    if out.suffix.lower() not in _ENDINGS:
        raise WishError(f"out={args.out}: flows are written as .json or .png; name such a file")
    policy, reference, guidance = _load(args)
    wishes = Wishes(args.only_models, args.only_nodes, args.max_steps, args.pin, args.resolution)
    keep_to(policy, wishes)
    schema = policy.codec.schema
    designer = GuidedDesigner(policy, reference, guidance, args.temperature)
    found = designer.propose([Prompt(f"design/{args.prompt}", args.prompt)], args.n, args.seed)
    flows = []
    for number, one in enumerate(found, 1):
        path = out if args.n == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        save = save_picture if path.suffix.lower() == ".png" else save_api
        save(path, one.flow, args.prompt, one.seed, schema)
        flows.append(
            {"out": str(path), "key": one.flow.key, "seed": one.seed, "settings": told(one.flow, schema)}
        )
    mini = miniature_models(one.flow for one in found)
    content = {"prompt": args.prompt, "guidance": guidance, "flows": flows, "miniature_models": mini}
    lines = [f"{flow['out']}: {flow['settings']}" for flow in flows]
    lines += [f"note: {', '.join(mini)}: {WHERE}"] if mini else []
    answer(content, "\n".join(lines), args.json)
    return DONE


def keep_to(policy: "Policy", wishes: Any) -> None:
    """Have a policy write nothing but what the wishes allow.

    Raises:
        WishError: They cannot be kept.
    """
    from flowsmith.designers.restricted_grammar import RestrictedGrammar
    from flowsmith.designers.wishes import Wishes, restrict
    from flowsmith.policy.allowed import AllowedSets

    if wishes == Wishes(pins=[]) or wishes == Wishes():
        return
    smaller = restrict(policy.codec.domain, policy.codec.schema, wishes)
    grammar: Any = RestrictedGrammar(policy.grammar, smaller)
    policy.grammar, policy.allowed_sets = grammar, AllowedSets(grammar, policy.codec.size)


def told(flow: "Flow", schema: "Schema") -> str:
    """Return in one line what a flow consists of: its classes, files, samplers, steps and guidance."""
    from flowsmith.flows import Link

    parts = []
    for node in flow.nodes:
        values = {name: value for name, value in node.inputs if not isinstance(value, Link)}
        shown = [
            f"{values[name]}" if name.endswith("_name") else f"{name} {values[name]}"
            for name in values
            if name.endswith("_name") or name in ("scheduler", "steps", "cfg", "denoise", "width", "height")
        ]
        if shown and not schema.node(node.class_type).is_output:
            parts.append(f"{node.class_type}({', '.join(shown)})")
    return " → ".join(parts)


def _load(args: argparse.Namespace) -> tuple["Policy", "Policy", float]:
    from flowsmith.policy import Policy, PolicyError

    export = Path(args.export)
    if (export / "policy").is_dir():
        guidance = 1.5 if args.guidance is None else args.guidance
        return Policy.load(export / "policy").eval(), Policy.load(export / "reference").eval(), guidance
    policy = Policy.load(export).eval()
    if args.guidance not in (None, 1.0):
        raise PolicyError(
            f"guidance={args.guidance:g}: {export} holds no pair of policy and reference to guide between; name "
            "GRPO's export, or leave guidance out"
        )
    return policy, policy, 1.0


def _resolution(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no width and height; write 1024x768")
    return int(found[1]), int(found[2])
