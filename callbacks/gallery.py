"""Shows validation's pictures and flows in TensorBoard."""

import json

from lightning import LightningModule, Trainer
from torch import Tensor, stack, uint8, zeros, zeros_like
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

from callbacks.candidate_callback import CandidateCallback, require_images
from callbacks.tensorboard import tensorboard_of
from flowsmith.candidates import Candidate, CandidateBatch


class Gallery(CandidateCallback):
    """Logs a grid of pictures (a row per designer) and, as text, some flows with prompt and score.

    Args:
        pictures: Prompts in the grid.
        flows: Flows shown as text, of each designer.
    """

    def __init__(self, pictures: int = 8, flows: int = 2) -> None:
        self._pictures, self._flows = pictures, flows
        self._kept: dict[str, list[Candidate]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch."""
        self._kept.clear()

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Keep the first pictures of each designer."""
        require_images(self, batch.candidates)
        for candidate in batch.candidates:
            kept = self._kept.setdefault(candidate.designer, [])
            if len(kept) < self._pictures and candidate.prompt.id not in {c.prompt.id for c in kept}:
                kept.append(candidate)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the first process's pictures."""
        writer = tensorboard_of(trainer)
        if writer is None or not self._kept:
            return
        columns = max(len(kept) for kept in self._kept.values())
        cells = []
        for kept in self._kept.values():
            row = [cell(c) for c in kept]
            cells += row + [zeros_like(row[0])] * (columns - len(row))
        grid = make_grid(stack(cells), nrow=columns, padding=2)
        step = trainer.global_step
        writer.add_image("val/pictures", grid, step)
        for designer, kept in self._kept.items():
            text = "\n\n".join(_text(c) for c in kept[: self._flows])
            writer.add_text(f"val/flows/{designer}", text, step)


def cell(candidate: Candidate, side: int = 96) -> Tensor:
    """Return the picture (uint8, 3 x side x side) in its own proportions on black; all black if it failed."""
    canvas = zeros(3, side, side, dtype=uint8)
    if candidate.image is not None:
        height, width = candidate.image.shape[1:]
        size = tuple(max(1, round(length * side / max(height, width))) for length in (height, width))
        image = interpolate(candidate.image[None].float(), size=size, mode="nearest-exact")[0].byte()
        top, left = ((side - length) // 2 for length in size)
        canvas[:, top : top + size[0], left : left + size[1]] = image
    return canvas


def _text(candidate: Candidate) -> str:
    score = "" if candidate.score is None else f" (score {candidate.score:+.2f})"
    graph = json.dumps(candidate.flow.to_template(), indent=1, ensure_ascii=False)
    body = graph if candidate.error is None else f"{graph}\nfailed: {candidate.error}"
    return f"**{candidate.prompt.text}**{score}\n\n" + "\n".join("    " + line for line in body.splitlines())
