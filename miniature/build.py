"""`python -m miniature.build`: make every weight of the miniature again, step by step, each with its gate.

A step that has passed its gate is not run again; one that was stopped goes on from its last minute. `--list` shows
the steps, `--only NAME` runs one, `--again NAME` forgets one first. Two CPU cores take less than five hours.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from miniature.record import Reached, read_record, read_trainings, write_record

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Step:
    """One product of the build.

    Attributes:
        name: Of the product.
        make: Makes it.
        measure: Measures it.
        least: The least that measures must reach.
        most: The most that they may reach.
        trainings: Names of its trainings (`miniature.training.fit`); that of the step if none is given.
    """

    name: str
    make: Callable[[], None]
    measure: Callable[[], dict[str, float]]
    least: dict[str, float]
    most: dict[str, float] = field(default_factory=dict)
    trainings: tuple[str, ...] = ()

    def states(self) -> tuple[str, ...]:
        """Return the names of all its trainings."""
        return self.trainings or (self.name,)

    def missed(self, figures: dict[str, float]) -> list[str]:
        """Say which figures lie outside their bounds; a figure that is no number does."""
        below = [f"{k} at least {v:.3f}" for k, v in self.least.items() if not figures[k] >= v]
        return below + [f"{k} at most {v:.3f}" for k, v in self.most.items() if not figures[k] <= v]


def steps_of(out: Path, scratch: Path, seed: int) -> list[Step]:
    """Return the steps in their order; weights go to ``out`` in ComfyUI's folder names, the rest to ``scratch``."""
    # Imported here, so that `--help` answers at once.
    from miniature import (
        diffusion,
        gates,
        judges,
        prompt_set,
        specialties,
        text_encoder,
        upscaler,
        vae,
        vivid,
    )

    base, folder, tokenizer = out / "checkpoints" / "mini_base", scratch / "vae", scratch / "tokenizer"
    first = scratch / "base_first"
    colourful, larger = out / "vae" / "mini_vivid", out / "upscale_models" / "mini_x2.safetensors"

    def checkpoint(specialty: specialties.Specialty) -> Step:
        path = out / "checkpoints" / specialty.name
        return Step(
            specialty.name,
            lambda: specialties.fine_tune(path, base=base, specialty=specialty, seed=seed, scratch=scratch),
            lambda: gates.specialised(path, specialty, base=base, seed=seed),
            {"gain on own": 0.0, "loss elsewhere": 0.0},
        )

    def lora(specialty: specialties.Specialty) -> Step:
        path = out / "loras" / f"{specialty.name}.safetensors"
        return Step(
            specialty.name,
            lambda: specialties.train_lora(path, base=base, specialty=specialty, seed=seed, scratch=scratch),
            lambda: gates.lora_peak(path, specialty, base=base, seed=seed),
            {"best strength": 0.25, "gain on own": 0.0, "loss elsewhere": 0.0},
            {"best strength": 1.25},
        )

    return [
        Step(
            "prompts",
            lambda: prompt_set.write_prompt_set(HERE / "data" / "prompts.jsonl", seed),
            lambda: {"prompts": float(6 * sum(prompt_set.PROMPTS.values()))},
            {},
        ),
        Step("tokenizer", lambda: text_encoder.make_tokenizer(tokenizer, seed), dict, {}),
        Step(
            "vae",
            lambda: vae.train_vae(folder, steps=3000, sharpening=2000, seed=seed, scratch=scratch),
            lambda: vae.gate_vae(folder, seed=seed),
            {"renders": 0.99, "reconstructions": 0.85},
            trainings=("vae", "vae_decoder"),
        ),
        Step(
            "base_first",
            lambda: diffusion.train_base(
                first, vae=folder, tokenizer=tokenizer, steps=7500, settings=800, seed=seed, scratch=scratch
            ),
            dict,
            {},
            trainings=("base_objects", "base_settings"),
        ),
        Step(
            "base",
            lambda: diffusion.refine_base(base, base=first, steps=6000, seed=seed, scratch=scratch),
            lambda: gates.checker_rates(out, seed=seed),
            {"overall": 0.35, "least task": 0.15},
            {"overall": 0.65, "most task": 0.85},
            trainings=("base_together",),
        ),
        Step(
            "vivid",
            lambda: vivid.make_vivid(colourful, vae=folder, steps=300, seed=seed, scratch=scratch),
            lambda: vivid.gate_vivid(colourful, vae=folder, seed=seed),
            {"chroma ratio": 1.15},
            {"chroma ratio": 1.45},
        ),
        Step(
            "upscaler",
            lambda: upscaler.train_upscaler(larger, vae=folder, steps=2400, seed=seed, scratch=scratch),
            lambda: upscaler.gate_upscaler(larger, vae=folder, seed=seed),
            {},
            {"error relative to bicubic": 0.75},
        ),
        *(checkpoint(specialty) for specialty in specialties.CHECKPOINTS),
        *(lora(specialty) for specialty in specialties.LORAS),
        *judges.steps(out / "judges", vae=folder, models=out, seed=seed, scratch=scratch),
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
    named = {step.name: step for step in steps}
    for name in (options.only, options.again):
        if name and name not in named:
            parser.error(f"no step is called {name!r}; the steps are {', '.join(named)}")
    record = options.scratch / "gates.json"
    if options.again:
        forget(named[options.again], options.scratch, record)
    reached = read_record(record)
    for step in steps:
        there = reached.get(step.name)
        if options.list or (there and not there.missed):
            print(f"{step.name}: {_words(there) if there else 'to be made'}")
        elif options.only in (None, step.name) and not run(step, options.scratch, record, options.seed):
            return 1
    return 0


def forget(step: Step, scratch: Path, record: Path) -> None:
    """Forget what a step reached and where its trainings stood, so that it starts anew; weights stay until then."""
    write_record(record, {name: r for name, r in read_record(record).items() if name != step.name})
    for state in step.states():
        (scratch / f"{state}.pt").unlink(missing_ok=True)


def run(step: Step, scratch: Path, record: Path, seed: int) -> bool:
    """Make and measure a step and record what it reached; say whether it passed its gate."""
    started, resumed = time.monotonic(), bool(read_trainings(scratch, step.states()))
    print(f"{step.name}: making", flush=True)
    step.make()
    figures = step.measure()
    seconds = round(time.monotonic() - started, 1)
    trainings = read_trainings(scratch, step.states())
    reached = Reached(figures, seed, seconds, resumed, trainings, step.missed(figures))
    print(f"{step.name}: {_words(reached)}", flush=True, file=sys.stderr if reached.missed else sys.stdout)
    # Read again: another `--only` may run beside this one.
    write_record(record, read_record(record) | {step.name: reached})
    return not reached.missed


def _words(reached: Reached) -> str:
    figures = ", ".join(f"{name} {value:.3f}" for name, value in reached.figures.items()) or "done"
    missed = f"; gate missed, {', '.join(reached.missed)} was asked" if reached.missed else ""
    return f"{figures} ({reached.seconds:.0f} s){missed}"


if __name__ == "__main__":
    sys.exit(main())
