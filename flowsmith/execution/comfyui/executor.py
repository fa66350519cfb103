"""Renders flows on ComfyUI servers: tasks in, images or recorded failures out, as the in-process executor does."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from flowsmith.execution.cache import Cache
from flowsmith.execution.comfyui.bars import Bars
from flowsmith.execution.comfyui.checks import (
    FactsReader,
    ServerFacts,
    Used,
    differences,
    is_model_file,
    used_by,
)
from flowsmith.execution.comfyui.client import Patience, Server
from flowsmith.execution.comfyui.connection import server_url, shown_url
from flowsmith.execution.comfyui.delivery import WEBSOCKET_NODE, Delivery
from flowsmith.execution.comfyui.errors import ServerFault, ServerSetupError
from flowsmith.execution.comfyui.pool import Done, Job, Pool
from flowsmith.execution.executor import RenderResult, RenderTask


class ComfyUIExecutor:
    """Renders tasks on a pool of ComfyUI servers, one prompt at a time on each.

    A task whose server dies, hangs or answers nonsense is tried again, twice at most and elsewhere if there is
    somewhere else. What a server refuses, even in part, or fails on is the task's failure.

    Args:
        servers: Addresses such as http://127.0.0.1:8188, one server for each GPU. Of several processes each
            takes its share.
        timeout: Seconds that a flow may run; then it is interrupted.
        patience: Seconds to wait for an answer, a connection, a history that lags, an interrupt.
        revival: Seconds that a server may be gone before the others go on without it.
        delivery: "websocket" keeps pictures off the server's disk and needs its node SaveImageWebsocket; "view"
            leaves one file a picture in its output folder; "auto" is the first where all servers can.
        cache_bytes: Bound on images kept for tasks of equal flow, prompt and seed.
        progress: Show a bar for each server.

    Raises:
        ServerSetupError: There is no server, or one stands twice or has no usable address.
    """

    def __init__(
        self,
        servers: list[str],
        timeout: float = 600.0,
        patience: float = 30.0,
        revival: float = 300.0,
        delivery: Literal["auto", "websocket", "view"] = "auto",
        cache_bytes: int = 256 << 20,
        progress: bool = False,
    ) -> None:
        self._urls = [server_url(text) for text in servers]
        names = [shown_url(url) for url in self._urls]
        if not names or len(set(names)) < len(names):
            raise ServerSetupError(f"servers={names}: list every server once, and at least one")
        if min(timeout, patience, revival) <= 0:
            raise ServerSetupError(
                f"timeout={timeout}, patience={patience}, revival={revival}: these are seconds; "
                "give numbers above 0"
            )
        self._share = self._urls
        self._patience = Patience(timeout, patience, revival)
        self._asked, self._progress = delivery, progress
        self._reader = FactsReader()
        self._images: Cache[tuple[Tensor, float]] = Cache(cache_bytes, lambda entry: entry[0].nbytes)

    def take_share(self, rank: int, processes: int) -> None:
        """Keep to this process's servers: every ``processes``-th, from ``rank`` on.

        Raises:
            ServerSetupError: There are fewer servers than processes.
        """
        if processes > len(self._urls):
            raise ServerSetupError(
                f"servers={[shown_url(url) for url in self._urls]}: too few for {processes} processes, since a "
                "server renders one flow at a time; list more servers or set trainer.devices to their number"
            )
        self._share = self._urls[rank::processes]

    @cached_property
    def facts(self) -> tuple[ServerFacts, ...]:
        """What all servers tell of themselves, in their listed order; asked once.

        Raises:
            ServerSetupError: One does not answer, is no ComfyUI server, or is of another version.
        """
        facts = asyncio.run(self._ask_all())
        if told := differences(facts, Used(frozenset(), frozenset())):
            raise ServerSetupError(f"the servers differ: {'; '.join(told)}")
        return tuple(facts)

    @property
    def version(self) -> str:
        """ComfyUI's version, as rows of scored flows have it."""
        return f"comfyui {self.facts[0].version}"

    @property
    def weight_hashes(self) -> dict[str, str]:
        """Model files that every server has; ComfyUI tells no hashes, so they count by their names."""
        shared = set.intersection(*(set(facts.model_files) for facts in self.facts))
        return dict.fromkeys(sorted(shared), "by name")

    @property
    def delivery(self) -> Delivery:
        """How pictures come back.

        Raises:
            ServerSetupError: The websocket was asked for, and a server lacks the node for it.
        """
        lacking = [facts.name for facts in self.facts if WEBSOCKET_NODE not in facts.schema.nodes]
        if self._asked == "websocket" and lacking:
            raise ServerSetupError(
                f"delivery=websocket: {lacking[0]} has no node {WEBSOCKET_NODE}; start it without "
                "--disable-all-custom-nodes, or set delivery=view"
            )
        return "view" if self._asked == "view" or lacking else "websocket"

    def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        """Render tasks and yield exactly one result for each, as they finish.

        What fails is told in its result; only what no task can help is raised. Servers get their next task while
        a result is asked for, so do not think long between two; closing the iterator withdraws what is running.

        Raises:
            ServerSetupError: Before the first task: a server does not answer, or lacks nodes or model files
                that the tasks use and others have. Later: no server is left.
        """
        schema = self.facts[0].schema
        jobs: dict[str, Job] = {}
        samples: dict[Job, list[str]] = {}
        for task in tasks:
            key = repr((task.flow.key, task.prompt, task.seed))
            if (known := self._images.get(key)) is not None:
                yield RenderResult(task.sample_id, known[0].clone(), None, known[1])
                continue
            if key not in jobs:
                try:
                    graph = task.flow.to_comfyui(task.prompt, task.seed, schema)
                except Exception as error:
                    yield RenderResult(task.sample_id, None, f"{type(error).__name__}: {error}", 0.0)
                    continue
                jobs[key] = Job(key, graph, _model_files(graph))
            samples.setdefault(jobs[key], []).append(task.sample_id)
        for done in self._run(list(jobs.values())):
            if done.image is not None:
                self._images.put(done.job.key, (done.image, done.seconds))
            for sample_id in samples[done.job]:
                image = None if done.image is None else done.image.clone()
                yield RenderResult(sample_id, image, done.error, done.seconds)

    def _run(self, jobs: list[Job]) -> Iterator[Done]:
        if not jobs:
            return
        used = used_by((job.graph for job in jobs), self.facts[0].schema)
        if told := differences(self.facts, used):
            raise ServerSetupError(f"the servers differ in what the flows use: {'; '.join(told[:10])}")

        async def check(server: Server) -> None:
            if told := differences([self.facts[0], await self._reader.read(server)], used):
                raise ServerSetupError(f"changed since the start: {'; '.join(told[:10])}")

        bars = Bars([shown_url(url) for url in self._share], hidden=not self._progress)
        pool = Pool(self._share, jobs, self._patience, self.delivery, check, bars.show)
        # The loop lives in this thread and runs while a result is waited for.
        with asyncio.Runner() as runner:
            runner.run(pool.start())
            try:
                for _ in jobs:
                    yield runner.run(pool.next())
            finally:
                runner.run(pool.close())
                bars.close()

    async def _ask_all(self) -> list[ServerFacts]:
        async with self._patience.session() as session:
            servers = [Server(url, session, self._patience, "view") for url in self._urls]
            try:  # one after another: an answer may take 100 MB
                return [await self._reader.read(server) for server in servers]
            except ServerFault as fault:
                raise ServerSetupError(f"{fault}; start the server, or take it out of servers") from fault


def _model_files(graph: Mapping[str, Any]) -> tuple[str, ...]:
    values = (value for node in graph.values() for value in node["inputs"].values())
    return tuple(sorted({value for value in values if is_model_file(value)}))
