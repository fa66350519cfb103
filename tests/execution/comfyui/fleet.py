"""Fake servers in a thread of their own, and tasks whose pictures are known."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from flowsmith.execution import RenderResult, RenderTask
from flowsmith.execution.comfyui import ComfyUIExecutor
from flowsmith.flows import Flow, Schema
from tests.execution.comfyui.fake_graph import painted
from tests.execution.comfyui.fake_server import FakeServer, Plan
from tests.flows_for_tests import some_flows

T = TypeVar("T")


def object_info(flows: Iterable[Flow], websocket: bool = True) -> dict[str, Any]:
    """Return the dump of an installation that has what flows use."""
    choices: dict[str, set[Any]] = {}
    core = Schema.core()
    for flow in flows:
        for node in flow.nodes:
            for spec in core.node(node.class_type).inputs:
                value = node.get(spec.name)
                if spec.kind == "choice" and value not in (None, *spec.choices):
                    target = f"{node.class_type}.{spec.name}"
                    choices.setdefault(target, set(spec.choices)).add(value)
    sorted_choices = {target: sorted(values) for target, values in choices.items()}
    dump = core.restrict(choices=sorted_choices).to_object_info()
    if websocket:
        required = {"images": ["IMAGE"]}
        dump["SaveImageWebsocket"] = {"input": {"required": required}, "output": [], "output_node": True}
    return dump


def tasks(number: int) -> list[RenderTask]:
    """Return tasks named "0", "1", …, with prompts "task 0", "task 1", …, over a few flows."""
    flows = some_flows(5)
    return [RenderTask(str(i), flows[i % len(flows)], f"task {i}", i) for i in range(number)]


def picture(task: RenderTask) -> Tensor:
    """Return what a fake server paints for a task."""
    colour = painted(task.flow.to_comfyui(task.prompt, task.seed, Schema.core()))
    return torch.tensor(list(colour), dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8)


def pictures(results: Iterable[RenderResult], wanted: Iterable[RenderTask]) -> dict[str, str]:
    """Check that every task has exactly one result and every image is its task's; return the errors by task."""
    listed, expected = list(results), {task.sample_id: task for task in wanted}
    assert sorted(r.sample_id for r in listed) == sorted(expected)
    for result in listed:
        if result.image is not None:
            assert result.error is None
            assert torch.equal(result.image, picture(expected[result.sample_id]))
    return {r.sample_id: str(r.error) for r in listed if r.image is None}


class Fleet:
    """Runs servers in a thread while the test goes on in its own.

    Args:
        servers: How many.
        plans: What goes wrong, for each or for all.
        dump: What they answer to /object_info.
        options: Of `FakeServer`.
    """

    def __init__(
        self,
        servers: int = 1,
        plans: Plan | list[Plan] | None = None,
        dump: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        listed = plans if isinstance(plans, list) else [plans or (lambda graph: None)] * servers
        dump = object_info(some_flows(5)) if dump is None else dump

        async def make() -> list[FakeServer]:
            return [FakeServer(dump, plan, **options) for plan in listed]

        self._thread.start()
        self.servers = self.call(make())

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something where the servers live."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def executor(self, **options: Any) -> ComfyUIExecutor:
        """Return an executor over the servers that waits for fractions of seconds."""
        return ComfyUIExecutor([s.url for s in self.servers], **{"timeout": 1.5, "patience": 3.0, **options})

    def __enter__(self) -> "Fleet":
        for server in self.servers:
            self.call(server.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            self.call(server.die())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._loop.close()


async def held(server: FakeServer) -> int:
    """Return how many prompts a server holds after it had time to let go of them."""
    await asyncio.sleep(0.1)
    return len(server.pending) + (server.running is not None)
