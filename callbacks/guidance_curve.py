"""Draws score against guidance weight, with intervals over prompts."""

from collections import defaultdict

from lightning import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import distributed

from callbacks.candidate_callback import CandidateCallback, require_scores
from callbacks.tensorboard import tensorboard_of
from flowsmith.candidates import CandidateBatch
from flowsmith.evaluation.statistics import mean_interval


class GuidanceCurve(CandidateCallback):
    """Logs the figure ``val/score_by_guidance``; list it after `ImageMetrics`."""

    def __init__(self) -> None:
        self._scores: dict[float, dict[str, list[float]]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch."""
        self._scores = {}

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Collect the scores of guided flows."""
        require_scores(self, batch.candidates)
        for c in batch.candidates:
            if c.guidance is not None and c.score is not None:
                self._scores.setdefault(c.guidance, defaultdict(list))[c.prompt.id].append(c.score)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the processes' scores and draw."""
        shares: list[dict[float, dict[str, list[float]]]] = [self._scores]
        if distributed.is_available() and distributed.is_initialized():
            gathered: list[dict[float, dict[str, list[float]]] | None] = [None] * distributed.get_world_size()
            distributed.all_gather_object(gathered, {w: dict(v) for w, v in self._scores.items()})
            shares = [share for share in gathered if share is not None]
        scores: dict[float, dict[str, list[float]]] = {}
        for share in shares:
            for weight, prompts in share.items():
                scores.setdefault(weight, {}).update(prompts)
        writer = tensorboard_of(trainer)
        if writer is not None and scores:
            writer.add_figure("val/score_by_guidance", guidance_figure(scores), trainer.global_step)


def guidance_figure(scores: dict[float, dict[str, list[float]]]) -> Figure:
    """Return score by guidance weight with 95 % intervals: weight -> prompt -> scores."""
    figure = Figure(figsize=(5, 3.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    weights = sorted(scores)
    means = [mean_interval(scores[w]) for w in weights]
    bars = [[m.mean - m.low for m in means], [m.high - m.mean for m in means]]
    axis.errorbar(weights, [m.mean for m in means], yerr=bars, marker="o", capsize=3)
    axis.set_xlabel("guidance weight w (0: vocabulary, 1: GRPO)")
    axis.set_ylabel("score of rendered images")
    axis.grid(alpha=0.3)
    return figure
