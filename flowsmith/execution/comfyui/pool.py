"""Several servers that share out jobs: whichever is free takes the next; what one fails at, another tries."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from yarl import URL

from flowsmith.execution.comfyui.client import Patience, Server
from flowsmith.execution.comfyui.delivery import Delivery
from flowsmith.execution.comfyui.errors import RenderFailure, ServerFault, ServerSetupError

RETRIES = 2
"""How often a job is tried again after a fault of a server."""

_SHORTEST, _LONGEST = 0.1, 5.0  # seconds between two looks at a server that is gone

Check = Callable[[Server], Awaitable[None]]
"""Raises ServerSetupError if a server that came back is not what it was."""

Watch = Callable[[str, float], None]
"""Is told a server's name and the share of its job that is done, 0 to 1."""


@dataclass(eq=False)
class Job:
    """A graph to run once.

    Attributes:
        key: Names the job.
        graph: In API format.
        files: Model files that it loads; servers keep to jobs of equal files, since loading takes long.
        tried: Servers that failed at it, in order.
    """

    key: str
    graph: Mapping[str, Any]
    files: tuple[str, ...] = ()
    tried: list[Server] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Done:
    """What came of a job: an image or an error."""

    job: Job
    image: Tensor | None
    error: str | None
    seconds: float = 0.0


class Pool:
    """Runs every job to exactly one end.

    Args:
        urls: The servers.
        jobs: What is to be run.
        patience: How long is waited.
        delivery: How pictures come back.
        check: Looks at a server again after a fault.
        watch: Is told of progress.
    """

    def __init__(
        self,
        urls: Sequence[URL],
        jobs: Sequence[Job],
        patience: Patience,
        delivery: Delivery,
        check: Check,
        watch: Watch,
    ) -> None:
        self._urls, self._patience, self._delivery = urls, patience, delivery
        self._check, self._watch = check, watch
        self._waiting, self._open = list(jobs), len(jobs)
        self._usable: set[Server] = set()
        self._doubtful: set[Server] = set()
        self._loaded: dict[Server, tuple[str, ...]] = {}
        self._faults: dict[str, str] = {}

    async def start(self) -> None:
        """Begin to work; needs a running loop, as everything here does."""
        self._changed = asyncio.Condition()
        self._finished = asyncio.Event()
        self._results: asyncio.Queue[Done | BaseException] = asyncio.Queue()
        self._session = self._patience.session()
        self._servers = [Server(url, self._session, self._patience, self._delivery) for url in self._urls]
        self._usable = set(self._servers)
        self._working = len(self._servers)
        self._workers = [asyncio.create_task(self._serve(server)) for server in self._servers]

    async def next(self) -> Done:
        """Wait for a job that has come to its end.

        Raises:
            ServerSetupError: No server is left; the jobs that are not done yet stay undone.
        """
        result = await self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    async def close(self) -> None:
        """Stop; prompts under way are withdrawn from the servers."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await asyncio.gather(*(server.leave() for server in self._servers), return_exceptions=True)
        await self._session.close()

    async def _serve(self, server: Server) -> None:
        """Take jobs until none is left or the server is given up."""
        try:
            while await self._ready(server) and (job := await self._take(server)) is not None:
                await self._attempt(server, job)
        except Exception as error:  # a mistake of ours must not leave anybody waiting
            self._results.put_nowait(error)
        self._working -= 1
        if self._open and not self._working:
            told = "; ".join(self._faults.values())
            self._results.put_nowait(
                ServerSetupError(
                    f"no ComfyUI server is left and {self._open} images are not rendered: {told}. Start the "
                    "servers again, then the same command: it goes on where it stopped"
                )
            )

    async def _ready(self, server: Server) -> bool:
        """Wait for a server to be there; return False if it is given up or there is nothing to do."""
        clock = asyncio.get_running_loop().time
        deadline, pause = clock() + self._patience.revival, _SHORTEST
        while self._open:
            try:
                await server.make_ready()
                if server in self._doubtful:
                    await self._check(server)
                    self._doubtful.discard(server)
            except (ServerFault, ServerSetupError) as error:
                self._faults[server.name] = str(error)
                await self._mark(server, usable=False)
                if isinstance(error, ServerSetupError) or clock() >= deadline:
                    return False
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._finished.wait(), pause)
                pause = min(2 * pause, _LONGEST)
            else:
                await self._mark(server, usable=True)
                return True
        return False

    async def _mark(self, server: Server, usable: bool) -> None:
        self._usable = self._usable | {server} if usable else self._usable - {server}
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _take(self, server: Server) -> Job | None:
        """Wait for a job for a server; return None if all have come to their end."""
        async with self._changed:
            while self._open:
                if (job := self._choose(server)) is not None:
                    self._waiting.remove(job)
                    self._loaded[server] = job.files
                    return job
                await self._changed.wait()
        return None

    def _choose(self, server: Server) -> Job | None:
        """Choose what others have failed at only if this server has not, or every usable one has.

        First come jobs of the files that the server has loaded, then those whose files fewest servers have.
        """
        loaded = self._loaded.get(server)
        elsewhere = list(self._loaded.values())
        allowed = (job for job in self._waiting if server not in job.tried or self._usable <= {*job.tried})
        return min(allowed, key=lambda job: (job.files != loaded, elsewhere.count(job.files)), default=None)

    async def _attempt(self, server: Server, job: Job) -> None:
        try:
            image, seconds = await server.render(
                job.graph, lambda fraction: self._watch(server.name, fraction)
            )
        except RenderFailure as error:
            await self._finish(Done(job, None, f"{type(error).__name__}: {error}"))
        except ServerFault as fault:
            self._doubtful.add(server)
            self._faults[server.name] = str(fault)
            job.tried.append(server)
            if len(job.tried) > RETRIES:
                told = f"{type(fault).__name__}: {fault} (given up after {len(job.tried)} tries)"
                await self._finish(Done(job, None, told))
            else:
                self._waiting.insert(0, job)
                await self._notify()
        else:
            await self._finish(Done(job, image, None, seconds))

    async def _finish(self, done: Done) -> None:
        self._open -= 1
        self._results.put_nowait(done)
        if not self._open:
            self._finished.set()
        await self._notify()
