"""``flowsmith plan``: renders and GPU-hours of the whole walk, computed before anything starts."""

import argparse
from dataclasses import asdict, dataclass
from typing import Any

from flowsmith.commands.answers import DONE, answer
from flowsmith.commands.arguments import add_json, non_negative, positive

_ABOUT = """\
Compute what the walk from a corpus to a trained designer takes: collect, reward ensemble, vocabulary, GRPO, evaluate.

Everything here is computed from the numbers below, nothing is measured but what you measured yourself: the seconds of
a picture (`flowsmith run` tells them; --scored-flows reads them off rows that you collected)."""
_OPTIONS: tuple[tuple[str, Any, float, str], ...] = (
    ("--train-prompts", positive, 1000, "prompts of the split train"),
    ("--validation-prompts", positive, 100, "prompts of the split validation, rendered in collecting"),
    ("--test-prompts", positive, 100, "prompts that designers are compared on"),
    ("--flows-per-prompt", positive, 8, "samples of collect.yaml"),
    ("--designers", positive, 8, "designers and guidance weights that are compared"),
    ("--samples", positive, 3, "pictures a designer and test prompt"),
    ("--seconds-per-image", non_negative, 5.0, "of one GPU, on average over the corpus"),
    ("--tokens", positive, 224, "of a prompt and its flow together"),
    ("--parameters", non_negative, 7.6e9, "of the language model"),
    ("--surrogate-parameters", non_negative, 1.5e8, "of one member of the reward ensemble"),
    ("--members", positive, 5, "of the reward ensemble"),
    ("--reward-epochs", positive, 8, "passes over the scored flows"),
    ("--vocabulary-epochs", positive, 1, "passes over the pairs"),
    ("--cycles", positive, 500, "of GRPO"),
    ("--prompts-per-cycle", positive, 64, "of GRPO"),
    ("--group", positive, 8, "flows a prompt in GRPO"),
    ("--tflops", non_negative, 150.0, "that a GPU really does in training, in 10^12 operations a second"),
    ("--tokens-per-second", non_negative, 3000.0, "that a GPU samples, over all flows of a batch"),
    ("--gpus", positive, 1, "at once"),
)


@dataclass(frozen=True)
class Step:
    """One step of the walk.

    Attributes:
        name: Its config.
        renders: Pictures.
        gpu_hours: Of one GPU.
        how: From what they were computed.
    """

    name: str
    renders: int
    gpu_hours: float
    how: str


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "plan",
        help="renders and GPU-hours of the walk, before anything starts",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, kind, default, text in _OPTIONS:
        parser.add_argument(
            name, type=kind, default=default, metavar="N", help=f"{text} (default: {default:g})"
        )
    parser.add_argument(
        "--scored-flows",
        metavar="FILE",
        help="parquet rows whose mean seconds stand in for --seconds-per-image",
    )
    add_json(parser)
    parser.set_defaults(do=plan)


def plan(args: argparse.Namespace) -> int:
    """Compute; see `main` for what is returned."""
    if args.tflops == 0 or args.tokens_per_second == 0:
        from flowsmith.errors import FlowsmithError

        raise FlowsmithError("tflops and tokens-per-second divide the work; give numbers above 0")
    source = "an assumption"
    if args.scored_flows:
        args.seconds_per_image, rows = _measured(args.scored_flows)
        source = f"the mean of {rows} rows of {args.scored_flows}"
    steps = steps_of(args)
    renders, hours = sum(step.renders for step in steps), sum(step.gpu_hours for step in steps)
    content = {
        "computed": True,
        "seconds_per_image": args.seconds_per_image,
        "seconds_per_image_is": source,
        "steps": [asdict(step) for step in steps],
        "renders": renders,
        "gpu_hours": hours,
        "hours": hours / args.gpus,
    }
    lines = [f"{'step':12}{'renders':>12}{'GPU-hours':>12}  computed from"]
    lines += [f"{step.name:12}{step.renders:12,}{step.gpu_hours:12,.1f}  {step.how}" for step in steps]
    lines.append(
        f"{'all':12}{renders:12,}{hours:12,.1f}  {hours / args.gpus:,.1f} hours on {args.gpus} GPU(s)"
    )
    lines.append(f"computed, not measured; {args.seconds_per_image:g} s a picture is {source}")
    answer(content, "\n".join(lines), args.json)
    return DONE


def steps_of(args: argparse.Namespace) -> list[Step]:
    """Return the steps; a trained token takes 6 operations a weight (2 forward, 4 back), a read one 2."""
    collected = (args.train_prompts + args.validation_prompts) * args.flows_per_prompt
    compared = args.test_prompts * args.samples * args.designers
    trained = args.train_prompts * args.flows_per_prompt * args.tokens
    sampled = args.cycles * args.prompts_per_cycle * args.group * args.tokens
    rate = args.tflops * 1e12 * 3600
    seconds = f"{args.seconds_per_image:g} s a picture"
    sampling = sampled / args.tokens_per_second / 3600
    updating = 8 * args.parameters * sampled / rate
    return [
        Step("collect", collected, collected * args.seconds_per_image / 3600, seconds),
        Step(
            "reward", 0,
            6 * args.surrogate_parameters * args.members * args.reward_epochs * trained / rate,
            f"{args.members} members x {args.reward_epochs} epochs x {trained:,} tokens",
        ),
        Step(
            "vocabulary", 0, 6 * args.parameters * args.vocabulary_epochs * trained / rate,
            f"{args.vocabulary_epochs} epochs x {trained:,} tokens",
        ),
        Step("grpo", 0, sampling + updating, f"{sampled:,} tokens sampled, and trained with a reference beside"),
        Step("evaluate", compared, compared * args.seconds_per_image / 3600, seconds),
    ]  # fmt: skip


def _measured(path: str) -> tuple[float, int]:
    """Return the mean seconds of the rows that were rendered, and how many there are."""
    from flowsmith.errors import FlowsmithError
    from flowsmith.scored_flows import read_scored_flows

    table = read_scored_flows(path)
    pairs = zip(table["seconds"].to_pylist(), table["error"].to_pylist(), strict=True)
    seconds = [one for one, error in pairs if one is not None and not error]
    if not seconds:
        raise FlowsmithError(f"scored_flows={path}: no row was rendered; give --seconds-per-image instead")
    return sum(seconds) / len(seconds), len(seconds)
