"""The words and tables of the card; see `miniature.card`."""

import os
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

from miniature.record import Reached
from miniature.samples import PROMPTS
from miniature.specialties import POSTER, STRENGTHS, STRIPED

# Each LoRA by name, with a prompt for it and one against it.
SWEEPS = {POSTER.name: (PROMPTS[0], PROMPTS[6]), STRIPED.name: (PROMPTS[4], PROMPTS[2])}


def card(reached: Mapping[str, Reached], models: Path, pictures: Path, folder: Path) -> str:
    """Return the card in Markdown; pictures are linked relative to the card's folder."""

    def picture(name: str) -> str:
        return f"![{name}]({Path(os.path.relpath(pictures / name, folder)).as_posix()})"

    sweeps = [
        part
        for name, prompts in SWEEPS.items()
        for part in (
            f"### {name}",
            "Strengths from 0 to 1.5 on UNet and text encoder; prompts "
            + " and ".join(str(PROMPTS.index(prompt) + 1) for prompt in prompts)
            + ", the first what it is for, the second what it is not.",
            picture(f"{name}.jpg"),
            *([_sweep_table(reached[name].figures)] if name in reached else []),
        )
    ]
    return (
        "\n\n".join(
            [
                "# The miniature's models",
                "Made by `python -m miniature.build`, described by `python -m miniature.card`, which writes this page.",
                "## Files",
                _files_table(models),
                "## How each was made",
                "Seconds are those of the machine that made it, gates included; with a + the step was stopped and went "
                "on, and earlier seconds are missing. A loss is the running mean at the end of a training.",
                _steps_table(reached),
                "## What the gates measured",
                *(f"**{name}**: {_figures(step)}" for name, step in reached.items() if step.figures),
                "## Checkpoints",
                "The default flow; rows are mini_base (b), mini_pencil (p) and mini_crowd (c), and a "
                "column starts from one noise. The prompts:",
                "\n".join(f"{k}. {prompt}" for k, prompt in enumerate(PROMPTS, 1)),
                picture("checkpoints.jpg"),
                "## LoRAs",
                *sweeps,
                "## Second VAE",
                "The same latents, decoded by mini_base's own VAE (b) and by mini_vivid (v).",
                picture("vae.jpg"),
                "## Upscaler",
                "The same pictures, enlarged twice bicubically (b) and by mini_x2 (x).",
                picture("upscaler.jpg"),
            ]
        )
        + "\n"
    )


def _files_table(models: Path) -> str:
    from safetensors import safe_open

    rows, sizes = [], 0
    for path in sorted(models.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            numbers = sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
        size = path.stat().st_size
        sizes += size
        rows.append((f"`{path.relative_to(models).as_posix()}`", f"{numbers:,}", f"{size / 1e6:.2f}"))
    return _table(("file", "numbers", "MB"), [*rows, ("together", "", f"{sizes / 1e6:.2f}")])


def _steps_table(reached: Mapping[str, Reached]) -> str:
    rows = []
    for name, step in reached.items():
        seconds = f"{step.seconds:,.0f}{' +' if step.resumed else ''}"
        ends = [(t, f"{end.steps:,}", f"{end.loss:.4f}") for t, end in step.trainings.items()]
        rows += [(name, str(step.seed), *end, seconds) for end in ends or [("", "", "")]]
    return _table(("step of the build", "seed", "training", "steps", "loss", "seconds"), rows)


def _sweep_table(figures: Mapping[str, float]) -> str:
    rows = [
        (words, *(f"{figures[f'{key} at {strength}']:.3f}" for strength in STRENGTHS))
        for words, key in (("own scenes", "own"), ("elsewhere", "elsewhere"))
        if f"{key} at {STRENGTHS[0]}" in figures
    ]
    return _table(("denoising loss, of that at 0", *(str(strength) for strength in STRENGTHS)), rows)


def _figures(step: Reached) -> str:
    # A sweep has a table of its own.
    shown = {k: v for k, v in step.figures.items() if not k.startswith(("own at", "elsewhere at"))}
    missed = f"; **missed**: {', '.join(step.missed)} was asked" if step.missed else ""
    return ", ".join(f"{name} {value:.4g}" for name, value in shown.items()) + missed


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
