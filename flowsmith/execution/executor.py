"""Renders flows: tasks in, images or recorded failures out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.faults import fault_of
from flowsmith.execution.graph import Plan, plan_graph
from flowsmith.execution.interpreter import Interpreter
from flowsmith.execution.library import ModelLibrary
from flowsmith.flows import Flow, Schema

VERSION = "1"
"""What an image depends on beside flow, prompt, seed and weights; raised when a change here moves pixels."""

_WINDOW = 8  # batches of tasks looked at together: more find more company, fewer hold less memory


@dataclass(frozen=True)
class RenderTask:
    """One image to make.

    Attributes:
        sample_id: Handed back with the result.
        flow: What to run.
        prompt: Any text; it fills the flow's templates.
        seed: Of the first sampling node; the k-th one gets ``seed + k``.
    """

    sample_id: str
    flow: Flow
    prompt: str
    seed: int


@dataclass
class RenderResult:
    """An image or a failure with its cause.

    Attributes:
        sample_id: The task's.
        image: uint8 [3, height, width] on the CPU; of several outputs or images the first.
        error: Type and message of what went wrong, and in which node.
        seconds: Time that the flow's nodes took, its share of batches, reading of files not counted.
    """

    sample_id: str
    image: Tensor | None
    error: str | None
    seconds: float


class Executor:
    """Renders tasks in batches that share models, texts and whole sub-graphs.

    Noise depends on a sample's own seed only, so images do not depend on what is rendered beside them but
    for last bits. What does not fit into memory is rendered in smaller batches, then decoded in tiles.

    Args:
        models: Root of the model files, with ComfyUI's folder names.
        schema: Node schema that flows are written out with; the project's own by default.
        device: Where networks run.
        batch_size: Most images in one run of a network.
        dtype: Number type of UNet and VAE; by default float16 on CUDA, float32 elsewhere.
        max_model_bytes: Bound on models kept loaded in the CPU's memory.
        max_result_bytes: Bound on text encodings, latents and images kept for later.
        max_device_bytes: Bound on weights in the device's memory; by default 60 % of it.
        timeout: Seconds that a flow may take, by its share of batches. It is looked at before every call of a
            denoising network and after every node; what hangs inside one of them is not interrupted.

    Raises:
        ExecutionError: The batch size or the timeout is not above 0.
    """

    version = VERSION

    def __init__(
        self,
        models: Path | str,
        schema: Schema | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 16,
        dtype: torch.dtype | None = None,
        max_model_bytes: int = 4 << 30,
        max_result_bytes: int = 256 << 20,
        max_device_bytes: int | None = None,
        timeout: float = 600.0,
    ) -> None:
        if batch_size < 1 or not timeout > 0:
            raise ExecutionError(
                f"batch_size={batch_size}, timeout={timeout}: nothing could be rendered; use at least 1, and seconds "
                "above 0"
            )
        self.library = ModelLibrary(models, device, dtype, max_model_bytes, max_device_bytes)
        self._schema = schema or Schema.core()
        self._interpreter = Interpreter(self.library, batch_size, max_result_bytes, timeout)
        self._window = _WINDOW * batch_size

    @property
    def weight_hashes(self) -> dict[str, str]:
        """Content hash of every model file of the library by "kind/name"; read when first asked for."""
        return self.library.weight_hashes

    def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        """Render tasks and yield exactly one result for each, as they finish.

        What fails is told in its result and never raised.
        """
        planned: list[tuple[RenderTask, Plan]] = []
        for task in tasks:
            try:
                planned.append((task, plan_graph(task.flow.to_comfyui(task.prompt, task.seed, self._schema))))
            except Exception as error:
                yield RenderResult(task.sample_id, None, f"{type(error).__name__}: {error}", 0.0)
        # Tasks that read the same files stand together, so that each file is read once.
        planned.sort(key=lambda pair: (pair[1].files, pair[0].flow.key))
        for start in range(0, len(planned), self._window):
            yield from self._render_window(planned[start : start + self._window])

    def _render_window(self, planned: list[tuple[RenderTask, Plan]]) -> Iterator[RenderResult]:
        readers: dict[str, list[int]] = {}
        missing = [set(plan.outputs) for _, plan in planned]
        errors: list[str | None] = [None] * len(planned)
        costs: list[dict[str, float]] = [{} for _ in planned]
        images: list[Tensor | None] = [None] * len(planned)
        for index, (_, plan) in enumerate(planned):
            for key in plan.outputs:
                readers.setdefault(key, []).append(index)
        for key, outcome in self._interpreter.run(plan for _, plan in planned):
            for index in readers[key]:
                task, plan = planned[index]
                missing[index].discard(key)
                errors[index] = errors[index] or outcome.error
                costs[index].update(outcome.costs)
                if key == plan.outputs[0] and outcome.values:
                    images[index] = outcome.values[-1].clone()  # one's own, and free of inference mode
                if not missing[index]:
                    image, error = images[index], errors[index]
                    images[index] = None
                    if error is None and image is not None:
                        error = fault_of(image)
                    told = image if error is None else None
                    yield RenderResult(task.sample_id, told, error, sum(costs[index].values()))
