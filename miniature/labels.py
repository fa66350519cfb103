"""`python -m miniature.labels`: how often the checker agrees with people who looked at the pictures.

    python -m miniature.labels --sheets DIR            render pictures and lay them on numbered contact sheets
    python -m miniature.labels --verdicts DIR/eye.txt  keep what was seen on them
    python -m miniature.labels                         render the same pictures again and compare

The verdicts are a text file next to the sheets, a line a sheet, a character a picture: y (it shows what its prompt
says, setting and style aside, of which the checker says nothing), n (it does not) or ? (cannot tell); spaces and what
follows a # are left out. Pictures are never kept: a flow, a prompt and a seed make them again, so labels hold for the
weights that they were given to.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from flowsmith.execution import Executor, RenderResult, RenderTask
from flowsmith.flows import Domain, Flow, Schema
from flowsmith.policy.noise import derived_seed
from flowsmith.prompts import Prompt, read_prompts
from miniature.checker import check_image
from miniature.checker_labels import (
    Agreement,
    Label,
    LabelError,
    compare,
    read_labels,
    with_verdicts,
    write_labels,
)
from miniature.contact_sheets import PER_SHEET, write_sheets

HERE = Path(__file__).parent
PROMPTS, LABELS = HERE / "data" / "prompts.jsonl", HERE / "data" / "checker_labels.json"
WEIGHTS = HERE / "weights"
# As made, sharpened, enlarged, larger from the start: whatever flows do to a picture, the checker must see through.
FLOWS = ("default", "sharpened", "upscaled", "upscaled_sharpened", "hires_sharpened", "canvas_96")
NUMBER = 42  # prompts, each with every flow
_LIST = "pictures.json"  # what is on the sheets, in their order


class Renderer(Protocol):
    """What `flowsmith.execution.Executor` does."""

    def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        """Yield one result for each task, in any order."""


def pictures(prompts: Sequence[Prompt], flows: Sequence[Path]) -> list[Label]:
    """Return every prompt's pictures by every flow, not yet labelled; flows start from noise of their own."""
    names = [_relative(flow) for flow in flows]
    return [Label(p.id, name, derived_seed("labels", p.id, name) % 2**32) for p in prompts for name in names]


def render(labels: Sequence[Label], prompts: Sequence[Prompt], renderer: Renderer) -> list[Tensor]:
    """Make the pictures, in order; uint8, 3 x height x width.

    Raises:
        LabelError: A prompt or a flow's file is no longer there, or a picture could not be rendered.
    """
    texts = {prompt.id: prompt.text for prompt in prompts}
    schema = Domain.from_yaml(HERE / "domain.yaml").restrict(Schema.core())
    flows: dict[str, Flow] = {}
    for label in labels:
        if label.prompt not in texts or not (HERE / label.flow).is_file():
            missing = label.flow if label.prompt in texts else label.prompt
            raise LabelError(
                f"{missing} is not there any more, so its picture cannot be made: label anew, --sheets"
            )
        if label.flow not in flows:
            text = (HERE / label.flow).read_text(encoding="utf-8")
            flows[label.flow] = Flow.from_template(text, schema)
    tasks = [RenderTask(str(i), flows[x.flow], texts[x.prompt], x.seed) for i, x in enumerate(labels)]
    images: dict[int, Tensor] = {}
    for result in renderer.render(tasks):
        if result.image is None:
            label = labels[int(result.sample_id)]
            raise LabelError(
                f"{label.flow} for {label.prompt} cannot be rendered ({result.error}): build the weights it names"
            )
        images[int(result.sample_id)] = result.image
    return [images[i] for i in range(len(labels))]


def measure(renderer: Renderer, path: Path, prompts: Path) -> Agreement:
    """Render the labelled pictures again and let the checker look at them.

    Args:
        renderer: With the weights that the labels were given to.
        path: File of labels.
        prompts: File of their prompts.

    Raises:
        LabelError: There are no labels, or a picture cannot be made again.
    """
    labels, known = read_labels(path), read_prompts(prompts)
    by_id = {prompt.id: prompt for prompt in known}
    images = render(labels, known, renderer)
    return compare(
        labels, [check_image(image, by_id[x.prompt]) for image, x in zip(images, labels, strict=True)]
    )


def _relative(flow: Path) -> str:
    try:
        return flow.resolve().relative_to(HERE).as_posix()
    except ValueError as error:
        raise LabelError(
            f"{flow} lies outside {HERE}, so nobody else finds it: copy it to miniature/flows"
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m miniature.labels", description=__doc__.splitlines()[0])
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="where to write contact sheets")
    parser.add_argument(
        "--dense", type=Path, nargs="+", metavar="PATH", help="flows for the sheets, not the usual"
    )
    parser.add_argument(
        "--verdicts", type=Path, metavar="FILE", help="what was seen; it stands next to the sheets"
    )
    parser.add_argument("--models", type=Path, default=WEIGHTS, metavar="DIR", help="root of the weights")
    options = parser.parse_args(arguments)
    if options.verdicts:
        labels = read_labels(options.verdicts.parent / _LIST)
        write_labels(LABELS, with_verdicts(labels, options.verdicts.read_text(encoding="utf-8"), PER_SHEET))
        print(f"{len(labels)} labels in {LABELS}")
    elif options.sheets:
        prompts = read_prompts(PROMPTS)
        flows = options.dense or [
            p for p in (HERE / "flows" / f"{name}.json" for name in FLOWS) if p.exists()
        ]
        labels = pictures([p for p in prompts if p.split == "test"][:NUMBER], flows)
        texts = {prompt.id: prompt.text for prompt in prompts}
        images = render(labels, prompts, Executor(options.models))
        for path in write_sheets(options.sheets, images, [texts[x.prompt] for x in labels]):
            print(path)
        write_labels(options.sheets / _LIST, labels)
    else:
        agreement = measure(Executor(options.models), LABELS, PROMPTS)
        for label in agreement.disagreements:
            print(
                f"{label.flow} {label.prompt} seed {label.seed}: the eye says {'yes' if label.shows else 'no'}"
            )
        print(agreement)


if __name__ == "__main__":
    main()
