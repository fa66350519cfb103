"""Keeps every picture as a PNG file in the run folder."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from callbacks.candidate_callback import CallbackOrderError, CandidateCallback, earlier, require_images
from callbacks.scored_flow_writer import ScoredFlowWriter
from flowsmith.candidates import CandidateBatch
from flowsmith.evaluation.kept_pictures import KeptPictures


class PictureKeeper(CandidateCallback):
    """Writes the pictures of all samples into ``<run folder>/pictures``, one file a sample.

    List it after whatever judges the pictures and before `ScoredFlowWriter`: a row then never lacks its picture.
    """

    def __init__(self) -> None:
        self._kept: KeptPictures | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the folder.

        Raises:
            CallbackOrderError: Rows are written before their pictures.
        """
        if earlier(trainer, self, ScoredFlowWriter):
            raise CallbackOrderError(
                "PictureKeeper is listed after ScoredFlowWriter: a run that stops between the two would not make the "
                "picture again; list it before"
            )
        self._kept = KeptPictures(Path(trainer.default_root_dir) / "pictures")

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Write the batch's pictures."""
        if self._kept is None:
            raise CallbackOrderError(
                "PictureKeeper works in predict only; remove it from this stage's callbacks"
            )
        candidates: list[Any] = batch.candidates
        if candidates:
            require_images(self, candidates)
        for candidate in candidates:
            if candidate.image is not None:
                self._kept.keep(candidate.sample_id, candidate.image)
