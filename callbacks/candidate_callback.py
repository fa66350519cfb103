"""What guided sampling, flow execution and image metrics share: they fill a batch of candidates, in their order."""

from typing import Any, TypeVar

from lightning import Callback, LightningModule, Trainer

from flowsmith.candidates import Candidate, CandidateBatch
from flowsmith.errors import FlowsmithError

C = TypeVar("C", bound=Callback)


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


def earlier(trainer: Trainer, callback: Callback, kind: type[C]) -> list[C]:
    """Return the trainer's callbacks of a kind that are listed before this one."""
    listed: list[Callback] = getattr(trainer, "callbacks", [])
    return [c for c in listed[: listed.index(callback)] if isinstance(c, kind)]


def require_images(callback: Callback, candidates: list[Candidate]) -> None:
    """Raise CallbackOrderError unless every candidate was rendered, or failed to be."""
    if not candidates or any(c.image is None and c.error is None for c in candidates):
        raise CallbackOrderError(
            f"{type(callback).__name__} found candidates without image and without error: list FlowExecution before it"
        )


def require_scores(callback: Callback, candidates: list[Candidate]) -> None:
    """Raise CallbackOrderError unless every candidate that was rendered has a score."""
    require_images(callback, candidates)
    if any(c.image is not None and c.score is None for c in candidates):
        raise CallbackOrderError(
            f"{type(callback).__name__} found rendered candidates without score: "
            "list ImageMetrics with score= before it"
        )
