"""Judges the candidates' images, and logs what came out for each designer."""

import math
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import distributed

from callbacks.candidate_callback import CandidateCallback, require_images
from flowsmith.candidates import Candidate, CandidateBatch
from flowsmith.metrics import ImageBatch, Judge
from flowsmith.metrics.score import Score, check_judges


class ImageMetrics(CandidateCallback):
    """Fills in judges and score, and logs their means as ``val/<judge>/<designer>``.

    Args:
        judges: What judges the images; those that the score does not name are held out.
        score: JSON file of the score's scales; None leaves the score open (before it is fitted).
        batch_size: Images judged at once.
    """

    def __init__(self, judges: list[Judge], score: str | None = None, batch_size: int = 64) -> None:
        self.judges = judges
        self._score_file = None if score is None else Path(score)
        self._batch_size = batch_size
        self._sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])

    @cached_property
    def score(self) -> Score | None:
        """The score, None where it is open."""
        if self._score_file is None:
            return None
        score = Score.load(self._score_file)
        check_judges(f"score={self._score_file}", score.judges, [judge.name for judge in self.judges])
        return score

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the score, so that a missing or wrong one is told before anything is rendered.

        Raises:
            ScoreError: There is no readable score, or it weighs judges that are not listed.
        """
        _ = self.score

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Judge every rendered candidate; one that cannot be judged becomes a failed one, and the others stay."""
        if batch.candidates:
            require_images(self, batch.candidates)
        rendered = [c for c in batch.candidates if c.image is not None]
        for start in range(0, len(rendered), self._batch_size):
            part = rendered[start : start + self._batch_size]
            images = ImageBatch(c.image for c in part if c.image is not None)  # judges share what they can
            for judge in self.judges:
                judge.to(module.device)
                with torch.inference_mode():
                    values = judge.judge(images, [c.prompt for c in part]).cpu().tolist()
                for candidate, value in zip(part, values, strict=True):
                    candidate.judges[judge.name] = value
            for candidate in part:
                self._weigh(candidate)
        for candidate in batch.candidates:
            values_of = {**candidate.judges, "rendered": float(candidate.image is not None)}
            if candidate.score is not None:
                values_of["score"] = candidate.score
            for name, value in values_of.items():
                total = self._sums[name, candidate.designer]
                total[0] += value
                total[1] += 1

    def _weigh(self, candidate: Candidate) -> None:
        """Score a candidate; NaN abstains, but of no judge that the score weighs."""
        weighed = self.score.judges.keys() if self.score is not None else set[str]()
        for name, value in candidate.judges.items():
            if math.isinf(value) or (math.isnan(value) and name in weighed):
                return candidate.fail(f"{name}={value}")
        candidate.judges = {name: value for name, value in candidate.judges.items() if not math.isnan(value)}
        if self.score is not None:
            candidate.score = self.score(candidate.judges)
        return None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch."""
        self._sums.clear()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log means over all processes, as sums and counts."""
        means = {
            f"val/{name}/{designer}": total / count
            for (name, designer), (total, count) in self.totals().items()
        }
        pl_module.log_dict(means, rank_zero_only=True)

    def totals(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Return (judge, designer) -> (sum, count) over all processes."""
        mine = {key: tuple(value) for key, value in self._sums.items()}
        shares: list[Any] = [mine]
        if distributed.is_available() and distributed.is_initialized():
            shares = [None] * distributed.get_world_size()
            distributed.all_gather_object(shares, mine)
        joined: dict[tuple[str, str], tuple[float, float]] = {}
        for share in shares:
            for key, (total, count) in share.items():
                before = joined.get(key, (0.0, 0.0))
                joined[key] = (before[0] + total, before[1] + count)
        return joined
