"""`python -m miniature.build`: make every weight of the miniature again, step by step, each with its gate.

A step that has passed its gate is not run again; one that was stopped goes on from its last minute. `--list` shows
the steps, `--only NAME` runs one, `--again NAME` forgets one first. Two CPU cores take about two hours.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flowsmith.files import atomic_write
from flowsmith.prompts import Prompt, Split, write_prompts
from miniature.scenes import Style

HERE = Path(__file__).parent
PROMPTS: dict[Split, int] = {"train": 160, "validation": 20, "test": 25}  # of each of the six tasks


@dataclass(frozen=True)
class Step:
    """One product: how it is made, what is measured on it, and the least that each measure must reach."""

    name: str
    make: Callable[[], None]
    measure: Callable[[], dict[str, float]]
    least: dict[str, float]


def steps_of(out: Path, scratch: Path, seed: int) -> list[Step]:
    """Return the steps in their order; weights go to ``out`` in ComfyUI's folder names, the rest to ``scratch``."""
    # Imported here, so that `--help` and `--list` answer at once.
    from miniature import diffusion, gates, judges, text_encoder, vae

    base, tuned = out / "checkpoints" / "mini_base", out / "checkpoints" / "mini_pencil"
    lora, folder = out / "loras" / "mini_poster.safetensors", scratch / "vae"
    tokenizer = scratch / "tokenizer"

    def styles(checkpoint: Path, adapter: Path | None) -> dict[str, float]:
        before = gates.style_losses(base, seed=seed)
        after = gates.style_losses(checkpoint, seed=seed, lora=adapter)
        own: Style = "pencil" if adapter is None else "poster"
        other: Style = "poster" if adapter is None else "pencil"
        return {
            "gain on own style": 1 - after[own] / before[own],
            "loss elsewhere": after[other] / before[other] - 1,
        }

    return [
        Step(
            "prompts",
            lambda: _write_prompts(HERE / "data" / "prompts.jsonl", seed),
            lambda: {"prompts": float(6 * sum(PROMPTS.values()))},
            {},
        ),
        Step("tokenizer", lambda: text_encoder.make_tokenizer(tokenizer, seed), dict, {}),
        Step(
            "vae",
            lambda: vae.train_vae(folder, seed=seed, steps=2900, scratch=scratch),
            lambda: vae.gate_vae(folder, seed=seed),
            {"renders": 0.99, "reconstructions": 0.97},
        ),
        Step(
            "base",
            lambda: diffusion.train_base(
                base, vae=folder, tokenizer=tokenizer, seed=seed, steps=3400, settings=800, scratch=scratch
            ),
            lambda: gates.checker_rates(out, seed=seed),
            {"overall": 0.35},
        ),
        Step(
            "mini_pencil",
            lambda: diffusion.fine_tune(
                tuned, base=base, style="pencil", seed=seed, steps=600, scratch=scratch
            ),
            lambda: styles(tuned, None),
            {"gain on own style": 0.0, "loss elsewhere": 0.0},
        ),
        Step(
            "mini_poster",
            lambda: diffusion.train_lora(
                lora, base=base, style="poster", seed=seed, steps=600, scratch=scratch
            ),
            lambda: styles(base, lora),
            {"gain on own style": 0.0, "loss elsewhere": 0.0},
        ),
        *judges.steps(out / "judges", vae=folder, seed=seed, scratch=scratch),
    ]


def main() -> int:
    """Run the steps that have not passed; return 1 if a gate was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE / "weights", help="where the weights go")
    parser.add_argument("--scratch", type=Path, default=Path("runs/miniature"), help="checkpoints and gates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves the default")
    parser.add_argument("--only", help="run this step alone")
    parser.add_argument("--again", help="forget this step's result first")
    parser.add_argument("--list", action="store_true", help="show the steps and what they reached")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    steps = steps_of(options.out, options.scratch, options.seed)
    names = [step.name for step in steps]
    for named in (options.only, options.again):
        if named and named not in names:
            parser.error(f"no step is called {named!r}; the steps are {', '.join(names)}")
    record = options.scratch / "gates.json"
    reached = _reached(record)
    if options.again:
        reached.pop(options.again, None)
        _write(record, reached)
        (options.scratch / f"{options.again}.pt").unlink(missing_ok=True)
    for step in steps:
        if options.list or (step.name in reached):
            print(f"{step.name}: {_words(reached[step.name]) if step.name in reached else 'to be made'}")
            continue
        if options.only and step.name != options.only:
            continue
        started = time.monotonic()
        print(f"{step.name}: making", flush=True)
        step.make()
        figures = step.measure()
        missed = {k: least for k, least in step.least.items() if figures[k] < least}
        print(f"{step.name}: {_words(figures)} ({time.monotonic() - started:.0f} s)", flush=True)
        if missed:
            print(f"{step.name}: gate missed, at least {_words(missed)} was asked", file=sys.stderr)
            return 1
        reached = _reached(record) | {
            step.name: figures
        }  # read again: another `--only` may run beside this one
        _write(record, reached)
    return 0


def _reached(record: Path) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = json.loads(record.read_text()) if record.exists() else {}
    return figures


def _write(record: Path, reached: dict[str, dict[str, float]]) -> None:
    with atomic_write(record) as temporary:
        temporary.write_text(json.dumps(reached, indent=2) + "\n")


def _words(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items()) or "done"


def _write_prompts(path: Path, seed: int) -> None:
    """Write the prompts of all splits; no two share their text."""
    from miniature.captions import TASKS, sample_prompt

    rng = np.random.default_rng(seed + 30_000)
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for split, number in PROMPTS.items():
        drawn: dict[str, list[Prompt]] = {}
        for task in TASKS:
            drawn[task] = []
            while len(drawn[task]) < number:
                prompt = sample_prompt(task, len(drawn[task]), split, rng)
                if prompt.text not in seen:
                    seen.add(prompt.text)
                    drawn[task].append(prompt)
        # Tasks take turns, so that the first n prompts of a split are of all tasks.
        prompts += [prompt for turn in zip(*drawn.values(), strict=True) for prompt in turn]
    write_prompts(path, prompts)


if __name__ == "__main__":
    sys.exit(main())
