"""What each step of the build must reach before its weights are worth keeping."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowsmith.execution import Executor, RenderTask
from flowsmith.flows import Domain, Flow, Schema
from miniature.captions import TASKS, sample_prompt
from miniature.checker import check
from miniature.diffusion import denoising_loss, load_checkpoint, make_pool
from miniature.scenes import STYLES, Style

DOMAIN = Path(__file__).parent / "domain.yaml"
DEFAULT_FLOW = Path(__file__).parent / "flows" / "default.json"


def checker_rates(
    models: Path, *, seed: int, per_task: int = 25, flow: Path = DEFAULT_FLOW
) -> dict[str, float]:
    """Render validation prompts of the six tasks with one flow; return the share of right pictures per task."""
    rng = np.random.default_rng(seed + 20_000)
    prompts = [sample_prompt(task, i, "validation", rng) for task in TASKS for i in range(per_task)]
    schema = Domain.from_yaml(DOMAIN).restrict(Schema.core())
    graph = Flow.from_template(flow.read_text(encoding="utf-8"), schema)
    tasks = [RenderTask(p.id, graph, p.text, 1000 + i) for i, p in enumerate(prompts)]
    images = {r.sample_id: r.image for r in Executor(models, batch_size=30).render(tasks)}
    rates: dict[str, float] = {}
    for task in TASKS:
        pictures = [(images[p.id], p.facts) for p in prompts if p.task == task]
        right = [i is not None and check(i.permute(1, 2, 0).numpy(), facts) for i, facts in pictures]
        rates[task] = sum(right) / len(right)
    return {"overall": sum(rates.values()) / len(rates), **rates}


def style_losses(
    checkpoint: Path, *, seed: int, lora: Path | None = None, batches: int = 24
) -> dict[Style, float]:
    """Return the denoising loss per style on fresh scenes; equal seeds give equal noise, so differences are paired."""
    unet, encoder, tokenizer, _ = load_checkpoint(checkpoint, lora)
    losses: dict[Style, float] = {}
    for style in STYLES:
        pool = make_pool(checkpoint / "vae", seed=seed + 300, number=600, style=style)
        loss: Any = denoising_loss(unet, encoder, tokenizer, pool, batch=50)
        with torch.inference_mode():
            values = []
            for step in range(batches):
                torch.manual_seed(seed + step)
                values.append(float(loss(step)))
        losses[style] = sum(values) / len(values)
    return losses
