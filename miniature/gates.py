"""What each generator must reach before its weights are worth keeping."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from flowsmith.execution import Executor, RenderTask
from flowsmith.flows import Domain, Flow, Schema
from miniature.captions import TASKS, sample_prompt
from miniature.checker import check
from miniature.diffusion import denoising_loss, load_checkpoint
from miniature.pools import make_pool
from miniature.specialties import STRENGTHS, Specialty

DOMAIN = Path(__file__).parent / "domain.yaml"
DEFAULT_FLOW = Path(__file__).parent / "flows" / "default.json"
_BATCH = 50


def checker_rates(
    models: Path, *, seed: int, per_task: int = 200, flow: Path = DEFAULT_FLOW
) -> dict[str, float]:
    """Render validation prompts of the six tasks with one flow and let the checker look at them.

    Args:
        models: Root of the weights.
        seed: Of the prompts.
        per_task: Prompts of each task.
        flow: A flow's template.

    Returns:
        The share of right pictures over all and per task, the least and most of a task, and the share of pictures
        of which the checker would not say: these count as not right.

    Raises:
        RuntimeError: A picture could not be rendered.
    """
    rng = np.random.default_rng(seed + 20_000)
    prompts = [sample_prompt(task, i, "validation", rng) for task in TASKS for i in range(per_task)]
    graph = Flow.from_template(flow.read_text(encoding="utf-8"), known_models())
    tasks = [RenderTask(p.id, graph, p.text, 1000 + i) for i, p in enumerate(prompts)]
    facts, task_of = {p.id: p.facts for p in prompts}, {p.id: p.task for p in prompts}
    verdicts: dict[str, list[bool | None]] = {task: [] for task in TASKS}
    for result in Executor(models, batch_size=30).render(tasks):
        if result.image is None:
            raise RuntimeError(f"{flow.name} cannot be rendered with the weights in {models}: {result.error}")
        picture = result.image.permute(1, 2, 0).numpy()
        verdicts[str(task_of[result.sample_id])].append(check(picture, facts[result.sample_id]))
    return summary(verdicts)


def known_models() -> Schema:
    """Return the schema in which the miniature's flows are written: it lists the names of this world's models."""
    return Domain.from_yaml(DOMAIN).restrict(Schema.core())


def summary(verdicts: dict[str, list[bool | None]]) -> dict[str, float]:
    """Return the figures of `checker_rates` from every task's verdicts; None is an abstention."""
    rates = {task: said.count(True) / len(said) for task, said in verdicts.items()}
    every = [said for task in verdicts.values() for said in task]
    return {
        "overall": sum(rates.values()) / len(rates),
        "least task": min(rates.values()),
        "most task": max(rates.values()),
        "abstained": every.count(None) / len(every),
        **rates,
    }


@dataclass(frozen=True)
class Losses:
    """Mean denoising losses of one model on scenes of a specialty and on all others."""

    own: float
    elsewhere: float


def specialised(
    checkpoint: Path, specialty: Specialty, *, base: Path, seed: int, scenes: int = 600
) -> dict[str, float]:
    """Return by what share of the base's denoising loss a checkpoint is better on its own scenes and worse elsewhere.

    Scenes are fresh and told as people tell them; noise and captions are those of the base, so differences are paired.
    """
    before, after = (specialty_losses(c, specialty, seed=seed, scenes=scenes)[0] for c in (base, checkpoint))
    return {
        "gain on own": 1 - after.own / before.own,
        "loss elsewhere": after.elsewhere / before.elsewhere - 1,
    }


def lora_peak(
    lora: Path, specialty: Specialty, *, base: Path, seed: int, scenes: int = 600
) -> dict[str, float]:
    """Return how a LoRA's denoising loss goes with its strength, on its own scenes and elsewhere; see `peak`."""
    return peak(specialty_losses(base, specialty, seed=seed, scenes=scenes, lora=lora, strengths=STRENGTHS))


def peak(sweep: Sequence[Losses]) -> dict[str, float]:
    """Return where in a sweep over `STRENGTHS` the loss on own scenes is least, and what the rest costs.

    Gains and losses are shares of the loss at strength 0. "turn at 1.5" is how far the loss at 1.5 lies above the
    least; "least rise elsewhere" is the least change from one strength to the next.
    """
    own = [losses.own / sweep[0].own for losses in sweep]
    elsewhere = [losses.elsewhere / sweep[0].elsewhere for losses in sweep]
    one = STRENGTHS.index(1.0)
    return {
        "best strength": STRENGTHS[own.index(min(own))],
        "gain on own": 1 - min(own),
        "turn at 1.5": own[-1] / min(own) - 1,
        "loss elsewhere": elsewhere[one] - 1,
        "least rise elsewhere": min(after - before for before, after in pairwise(elsewhere)),
        **{f"own at {strength}": value for strength, value in zip(STRENGTHS, own, strict=True)},
        **{f"elsewhere at {strength}": value for strength, value in zip(STRENGTHS, elsewhere, strict=True)},
    }


def specialty_losses(
    checkpoint: Path,
    specialty: Specialty,
    *,
    seed: int,
    scenes: int = 600,
    lora: Path | None = None,
    strengths: Sequence[float] = (1.0,),
) -> list[Losses]:
    """Return the denoising losses on fresh scenes, at each strength of the LoRA if there is one.

    Equal seeds give equal scenes, captions and noise, whatever the weights.
    """
    unet, encoder, tokenizer, _ = load_checkpoint(checkpoint, lora)
    pools = [
        make_pool(checkpoint / "vae", seed=seed + 300, number=scenes, keep=keep)
        for keep in (specialty.keep, specialty.elsewhere)
    ]
    found = []
    for strength in strengths:
        for model in (unet, encoder):
            _set_strength(model, strength)
        found.append(Losses(*(_mean_loss(unet, encoder, tokenizer, pool, seed) for pool in pools)))
    return found


def _mean_loss(unet: Any, encoder: Any, tokenizer: Any, pool: Any, seed: int) -> float:
    loss = denoising_loss(unet, encoder, tokenizer, [pool], _BATCH)
    values = []
    with torch.inference_mode():
        for step in range(max(1, len(pool.scenes) // _BATCH)):
            torch.manual_seed(seed + step)
            values.append(float(loss(step)))
    return sum(values) / len(values)


def _set_strength(model: nn.Module, strength: float) -> None:
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for adapter in module.scaling:
                module.set_scale(adapter, strength)
