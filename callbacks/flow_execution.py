"""Renders the candidates' flows."""

from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import torch
from lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from callbacks.candidate_callback import CallbackOrderError, CandidateCallback
from callbacks.image_metrics import ImageMetrics
from flowsmith.candidates import Candidate, CandidateBatch
from flowsmith.execution import ExecutionError, Executor, ModelLibrary, RenderResult, RenderTask
from flowsmith.execution.ahead import run_ahead
from flowsmith.execution.faults import fault_of

Precision = Literal["auto", "float32", "float16", "bfloat16"]
_WORTH_A_BAR = 100  # tasks; fewer are over before one would read it
_JUDGED_AT_ONCE = 32  # images, while others are rendered


class Renderer(Protocol):
    """What makes images of flows."""

    @property
    def version(self) -> str:
        """What an image depends on beside flow, prompt, seed and weights."""

    @property
    def weight_hashes(self) -> dict[str, str]:
        """Hash of every model file by its name."""

    def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        """Yield exactly one result for each task, as they finish."""


class SharedRenderer(Renderer, Protocol):
    """One elsewhere, which all processes of a run use."""

    def take_share(self, rank: int, processes: int) -> None:
        """Keep to what this process may use."""


class FlowExecution(CandidateCallback):
    """Fills in images, or why there is none.

    Args:
        models: Folder of models, in ComfyUI's folder names, to render with in this process.
        batch_size: Samples of one flow computed at once; changes memory and speed alone.
        device: Where to render; "auto" is the module's device.
        precision: Number type of UNet and autoencoder; "auto" is float16 on CUDA and float32 elsewhere. bfloat16 takes
            half the time on CPUs that multiply it; colours move by one or two of 255.
        executor: Renders instead of this process, for instance `flowsmith.execution.comfyui.ComfyUIExecutor`.
        timeout: Seconds that a flow may take here, by its share of batches; an executor has its own.
        max_model_gb: Most gigabytes of models kept loaded in the CPU's memory; those unused for longest go first.
        max_device_gb: Likewise in the device's memory; by default 60 % of it.
        judge_meanwhile: Let `ImageMetrics` judge images while others are rendered; "auto" does so unless this CPU
            renders, which has nothing to spare.

    Raises:
        ExecutionError: Neither models nor an executor are given, or both.
    """

    def __init__(
        self,
        models: str | None = None,
        batch_size: int = 16,
        device: str = "auto",
        precision: Precision = "auto",
        executor: SharedRenderer | None = None,
        timeout: float = 600.0,
        max_model_gb: float = 4.0,
        max_device_gb: float | None = None,
        judge_meanwhile: Literal["auto"] | bool = "auto",
    ) -> None:
        if (models is None) == (executor is None):
            raise ExecutionError(
                f"models={models}, executor={executor}: flows are rendered with the one or by the other; give one"
            )
        self._models, self._batch_size, self._device = Path(models or ""), batch_size, device
        self._elsewhere = executor
        self._dtype = None if precision == "auto" else getattr(torch, precision)
        self._module_device = "cpu"
        self._timeout, self._max_gb = timeout, (max_model_gb, max_device_gb)
        self._judge_meanwhile, self._judges = judge_meanwhile, list[ImageMetrics]()

    @cached_property
    def executor(self) -> Renderer:
        """The renderer; its caches last as long as the run."""
        if self._elsewhere is not None:
            return self._elsewhere
        here, on_device = self._max_gb
        return Executor(
            self._models,
            device=self._where,
            batch_size=self._batch_size,
            dtype=self._dtype,
            max_model_bytes=int(here * 1e9),
            max_device_bytes=None if on_device is None else int(on_device * 1e9),
            timeout=self._timeout,
        )

    @property
    def _where(self) -> str:
        return self._module_device if self._device == "auto" else self._device

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is something to render with.

        Raises:
            ExecutionError: The folder of models holds no checkpoint, or there is too little for all processes.
        """
        if self._elsewhere is not None:
            self._elsewhere.take_share(trainer.global_rank, trainer.world_size)
        elif not ModelLibrary(self._models).names("checkpoints"):
            raise ExecutionError(
                f"models={self._models}: holds no checkpoints, so every flow would fail; "
                "name a folder with checkpoints/ and loras/"
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn the device before anybody asks for the executor, and who judges."""
        self._begin(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn the device before anybody asks for the executor, and who judges."""
        self._begin(trainer, pl_module)

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Render every candidate that has no image yet."""
        if not batch.candidates and not getattr(module, "finished", None):
            raise CallbackOrderError(
                "FlowExecution found no flow to render: list GuidedSampling before it, or name designers"
            )
        waiting = {c.sample_id: c for c in batch.candidates if c.image is None and c.error is None}
        # Side by side, so that samples of one flow are computed together.
        order = sorted(waiting.values(), key=lambda c: (c.flow.key, c.sample_id))
        tasks = [RenderTask(c.sample_id, c.flow, c.prompt.text, c.seed) for c in order]
        hidden = len(tasks) < _WORTH_A_BAR or module.global_rank > 0
        bar = tqdm(
            total=len(tasks), desc="rendering", unit="image", mininterval=5, disable=hidden, leave=False
        )
        images = self.executor.render(tasks)
        with closing(run_ahead(images)) if self._meanwhile else nullcontext(images) as results:
            unjudged: list[Candidate] = []
            for result in results:
                bar.update()
                candidate = waiting[result.sample_id]
                candidate.image, candidate.error, candidate.seconds = (
                    result.image,
                    result.error,
                    result.seconds,
                )
                if result.image is not None and (error := fault_of(result.image)):
                    candidate.fail(error)
                unjudged.append(candidate)
                if self._meanwhile and len(unjudged) >= _JUDGED_AT_ONCE:
                    for metrics in self._judges:
                        metrics.judge(module, unjudged)
                    unjudged = []
        bar.close()

    @property
    def _meanwhile(self) -> bool:
        if self._judge_meanwhile != "auto":
            return self._judge_meanwhile
        return self._elsewhere is not None or not self._where.startswith("cpu")

    def _begin(self, trainer: Trainer, module: LightningModule) -> None:
        self._module_device = str(module.device)
        listed: list[Callback] = getattr(trainer, "callbacks", [])
        self._judges = [c for c in listed[listed.index(self) + 1 :] if isinstance(c, ImageMetrics)]
