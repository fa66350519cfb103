"""What guided sampling, flow execution and image metrics share: they fill a batch of candidates, in their order."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from flowsmith.candidates import Candidate, CandidateBatch
from flowsmith.errors import FlowsmithError


class CallbackOrderError(FlowsmithError):
    """A callback needs what another one, absent or listed later, fills in."""


class CandidateCallback(Callback):
    """Calls ``fill`` on every batch of candidates, in validation and in predict."""

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Fill this callback's fields of the batch."""
        raise NotImplementedError

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *rest: int,
    ) -> None:
        """Fill what ``validation_step`` returned."""
        self.fill(pl_module, self._checked(outputs))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *rest: int,
    ) -> None:
        """Fill what ``predict_step`` returned."""
        self.fill(pl_module, self._checked(outputs))

    def _checked(self, outputs: Any) -> CandidateBatch:
        if not isinstance(outputs, CandidateBatch):
            raise CallbackOrderError(
                f"{type(self).__name__} was given a {type(outputs).__name__}: it fills the CandidateBatch of "
                "GRPOModule and DesignModule; remove it from this stage's callbacks"
            )
        return outputs


def require_images(callback: Callback, candidates: list[Candidate]) -> None:
    """Raise CallbackOrderError unless every candidate was rendered, or failed to be."""
    if not candidates or any(c.image is None and c.error is None for c in candidates):
        raise CallbackOrderError(
            f"{type(callback).__name__} found candidates without image and without error: list FlowExecution before it"
        )
