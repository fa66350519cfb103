"""A renderer that paints what it is told, a judge that sees the paint, and a stage over them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from callbacks import FlowExecution
from datamodules.design_prompts import DesignPrompts
from flowsmith.candidates import Candidate
from flowsmith.designers.protocol import candidate
from flowsmith.execution import RenderResult, RenderTask
from flowsmith.flows import Flow
from flowsmith.metrics import Judge
from flowsmith.prompts import Prompt, Split, write_prompts
from flowsmith.scored_flows import ScoredFlow
from lightning_modules.design import DesignModule
from tests.flows_for_tests import DOMAIN, some_flows

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PROMPTS = [Prompt(f"p{i}", f"prompt {i}", "test", TASKS[i % 6], {"x": 1}) for i in range(12)]
MODELS = str(DOMAIN.parent / "weights")


class PaintExecutor:
    """Renders a grey that follows from the flow; fails where told."""

    def __init__(self, failing: str = "", version: str = "1") -> None:
        self.version, self.weight_hashes = version, {"mini": "abc"}
        self.failing, self.seen = failing, list[str]()

    def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        for task in reversed(list(tasks)):  # results come in any order
            self.seen.append(task.sample_id)
            if self.failing and self.failing in task.sample_id:
                yield RenderResult(task.sample_id, None, "out of paint\nin the blue pot", 0.0)
            else:
                yield RenderResult(task.sample_id, paint(task.flow), None, 0.25)


def paint(flow: Flow) -> Tensor:
    """Return the flow's picture."""
    return torch.full((3, 8, 8), grey(flow), dtype=torch.uint8)


def grey(flow: Flow) -> int:
    """Return the flow's grey, 0 to 255."""
    return int(flow.key[:2], 16)


def known_row(flow: Flow) -> ScoredFlow:
    """Return a training row of a flow."""
    prompt = Prompt("t", "a prompt of training", "train")
    record = Candidate(f"corpus/{flow.key}", prompt, flow, "corpus", 0, score=0.0, judges={"grey": 0.0})
    return ScoredFlow.from_candidate(record, renderer="1", weights="w")


class Grey(Judge):
    """The picture's grey, 0 to 255."""

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        return torch.tensor([float(image.float().mean()) for image in images])


class Weighed(Grey):
    """The same, with weights that are only told apart."""

    def __init__(self, weight: float) -> None:
        network = nn.Linear(1, 1)
        nn.init.constant_(network.weight, weight)
        nn.init.zeros_(network.bias)
        super().__init__("grey", network=network)


class OneFlow:
    """Proposes one flow."""

    def __init__(self, name: str, flow: Flow) -> None:
        self.name, self.flow = name, flow

    def propose(self, prompts: Sequence[Prompt], samples: int, seed: int) -> list[Any]:
        return [candidate(self.name, p, i, self.flow, seed) for p in prompts for i in range(samples)]


class StopAfter(Callback):
    """Stops a run after a batch, from 0."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        if rest[2] == self.batch:
            raise KeyboardInterrupt


def execution(**options: str) -> FlowExecution:
    """Return flow execution that paints."""
    callback = FlowExecution(MODELS)
    callback.__dict__["executor"] = PaintExecutor(**options)
    return callback


def seen(callback: FlowExecution) -> list[str]:
    """Return the ids of the samples that were painted, in order."""
    return callback.executor.seen  # type: ignore[attr-defined, no-any-return]


def predict(
    folder: Path,
    callbacks: Sequence[Callback],
    names: Sequence[str] = ("a", "b"),
    split: Split = "test",
    kind: type[DesignModule] = DesignModule,
) -> DesignModule:
    """Run a stage of `OneFlow` designers over `PROMPTS`, five in a batch, two samples each."""
    write_prompts(folder / "prompts.jsonl", [replace(prompt, split=split) for prompt in PROMPTS])
    flows = some_flows(len(names))
    module = kind([OneFlow(n, f) for n, f in zip(names, flows, strict=True)], samples=2)
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=list(callbacks), default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    data = DesignPrompts(str(folder / "prompts.jsonl"), [split], batch=5)
    trainer.predict(module, datamodule=data, return_predictions=False)
    return module
