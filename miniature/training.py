"""A training loop that survives being stopped: it checkpoints every minute, resumes, and shows its progress."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from flowsmith.files import atomic_write

_SAVE_EVERY = 60.0  # seconds


def fit(
    name: str,
    modules: dict[str, nn.Module],
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    scratch: Path,
    weight_decay: float = 0.0,
    ema: float = 0.0,
    warmup: int = 50,
) -> dict[str, nn.Module]:
    """Minimise ``loss(step)`` over the modules' parameters with AdamW, a short warm-up and a linear decay to zero.

    ``loss`` must draw its batch from the step's number alone, so that a resumed run sees what an undisturbed one does.
    The state lies in ``scratch/<name>.pt`` until the step's caller removes the folder; it is read by this loop alone.

    Args:
        name: Of the progress bar and of the checkpoint.
        modules: What is trained, by name; on return they hold the average weights if ``ema`` is set.
        loss: Step number to scalar loss.
        steps: Optimisation steps.
        lr: Peak learning rate.
        scratch: Folder of checkpoints.
        weight_decay: AdamW's.
        ema: Decay of the exponential average of weights; 0 for none.
        warmup: Steps of linear warm-up.

    Returns:
        The modules, in eval mode.
    """
    bundle = nn.ModuleDict(modules)
    parameters = [p for p in bundle.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99))
    average = [p.detach().clone() for p in parameters] if ema else []
    path, start, smooth = scratch / f"{name}.pt", 0, float("nan")
    if path.exists():
        state = torch.load(path, weights_only=True)
        bundle.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        average, start, smooth = state["average"], int(state["step"]), float(state["smooth"])

    def save(step: int) -> None:
        with atomic_write(path) as temporary:
            torch.save(
                {
                    "modules": bundle.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average,
                    "step": step,
                    "smooth": smooth,
                },
                temporary,
            )

    bundle.train()
    saved = time.monotonic()
    bar = tqdm(range(start, steps), desc=name, initial=start, total=steps, mininterval=10, dynamic_ncols=True)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / warmup, 1.0) * (1 - step / steps)
        torch.manual_seed(step)
        value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if ema:
            decay = min(ema, (step + 1) / (step + 10))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        now = value.item()
        smooth = now if smooth != smooth else 0.98 * smooth + 0.02 * now
        bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
        if time.monotonic() - saved > _SAVE_EVERY:
            save(step + 1)
            saved = time.monotonic()
    if start < steps:
        save(steps)
    for parameter, mean in zip(parameters, average, strict=False):
        parameter.data.copy_(mean)
    bundle.eval()
    return modules


def fast_type() -> torch.dtype:
    """Return bfloat16 on CPUs that multiply it, and float32 elsewhere, where bfloat16 is slow."""
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def half_precision() -> torch.autocast:
    """Return a context in which products are of the fast type."""
    return torch.autocast("cpu", torch.bfloat16, enabled=fast_type() == torch.bfloat16)
