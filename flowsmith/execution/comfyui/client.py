"""One server's protocol: post a graph, follow it over the websocket, read the history, fetch the picture.

The websocket only says when to look: what happened is read from the history, so a message that is lost, late or
out of order changes nothing. One prompt is posted at a time, and none before the server has let go of the last.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

import aiohttp
from torch import Tensor
from yarl import URL

from flowsmith.execution.comfyui.connection import (
    MAX_DUMP_BYTES,
    MAX_IMAGE_BYTES,
    Connection,
    clipped,
    parse,
)
from flowsmith.execution.comfyui.delivery import Delivery, file_query, prepare
from flowsmith.execution.comfyui.errors import RenderFailure, ServerFault
from flowsmith.execution.comfyui.progress import Progress, Watch
from flowsmith.execution.comfyui.results import check_outcome, decode, refusal

_SHORTEST, _LONGEST = 0.02, 1.0  # seconds between two looks at what is not there yet


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds.

    Attributes:
        task: For a prompt, counted from its start; as long again for its turn, if others use the server too.
        answer: For an answer, a connection, an entry of the history that lags, an interrupt to take effect.
        revival: For a server that is gone to come back, before the others go on without it.
    """

    task: float = 600.0
    answer: float = 30.0
    revival: float = 300.0

    def session(self) -> aiohttp.ClientSession:
        """Return a session that waits as long."""
        limits = aiohttp.ClientTimeout(
            total=20 * self.answer, sock_connect=self.answer, sock_read=self.answer
        )
        return aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0))


class Server:
    """A ComfyUI server, one prompt at a time.

    Args:
        url: Where it is.
        session: What carries the requests.
        patience: How long is waited.
        delivery: How pictures come back.
    """

    def __init__(
        self, url: URL, session: aiohttp.ClientSession, patience: Patience, delivery: Delivery
    ) -> None:
        self._wire = Connection(url, session, patience.answer)
        self._patience, self._delivery = patience, delivery
        self._left: set[str] = set()  # prompts that may still be in the server's queue
        self.name = self._wire.name

    async def read_facts(self) -> tuple[str, bytes]:
        """Return ComfyUI's version and the answer of /object_info.

        Raises:
            ServerFault: It does not answer.
        """
        status, content = await self._wire.request("GET", "system_stats")
        stats = parse(content) if status == 200 else None
        system = stats.get("system") if isinstance(stats, dict) else None
        version = system.get("comfyui_version") if isinstance(system, dict) else None
        status, dump = await self._wire.request("GET", "object_info", limit=MAX_DUMP_BYTES)
        if status != 200:
            raise ServerFault(f"{self.name}: /object_info answers {status}")
        return clipped(version or "unknown", 40), dump

    async def make_ready(self) -> None:
        """Connect, and see to it that nothing of ours is left in the queue.

        Raises:
            ServerFault: It does not answer, or does not let go of a prompt.
        """
        await self._wire.connect()
        for prompt_id in list(self._left):
            try:
                async with asyncio.timeout(self._patience.answer):
                    pause = _SHORTEST
                    while not await self._withdraw(prompt_id):
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, _LONGEST)
            except TimeoutError as error:
                raise ServerFault(f"{self.name}: does not let go of a prompt that was interrupted") from error
            self._left.discard(prompt_id)

    async def leave(self) -> None:
        """Withdraw what is left in the queue, without waiting for it, and disconnect."""
        for prompt_id in self._left:
            try:
                await self._withdraw(prompt_id)
            except ServerFault:
                break
        self._left.clear()
        await self._wire.disconnect()

    async def render(self, graph: Mapping[str, Any], watch: Watch | None = None) -> tuple[Tensor, float]:
        """Run a graph; return its picture, uint8 [3, height, width], and the seconds that it took.

        Args:
            graph: In API format.
            watch: Is told of progress.

        Raises:
            RenderFailure: The graph is refused, even in part, or a node fails.
            ServerFault: Anything else; `make_ready` clears up before the next graph.
        """
        prompt_id = str(uuid4())
        posted, node = prepare(graph, self._delivery, prompt_id)
        named = await self._post(posted, prompt_id)
        progress = Progress(named, node, len(posted), watch)
        in_time = await self._follow(named, progress)
        entry = await self._history(named, self._patience.answer if in_time else 0.0)
        if entry is None:
            told = "lost the prompt" if in_time else f"is not done after {self._patience.task:g} s"
            raise ServerFault(f"{self.name}: {told}")
        self._left.discard(named)
        try:
            seconds = check_outcome(entry)
            content = progress.picture
            if self._delivery == "view":
                content = await self._view(file_query(entry, node, prompt_id))
            if content is None:
                raise ServerFault("the picture was lost on its way")
            return decode(content), seconds
        except ServerFault as fault:
            told = str(fault)
            raise ServerFault(told if told.startswith(self.name) else f"{self.name}: {told}") from fault

    async def _post(self, graph: Mapping[str, Any], prompt_id: str) -> str:
        """Queue a graph; return the id that the server gives it (older ones choose their own)."""
        self._left.add(prompt_id)  # it may be queued even if the answer is lost
        body = {"prompt": graph, "client_id": self._wire.client_id, "prompt_id": prompt_id}
        status, content = await self._wire.request("POST", "prompt", body)
        answer = parse(content)
        if not isinstance(answer, dict) or status >= 500:
            raise ServerFault(f"{self.name}: /prompt answers {status} {clipped(content[:200], 100)}")
        named = _canonical(answer.get("prompt_id"))
        if named is not None:
            self._left.discard(prompt_id)
            self._left.add(named)
        if (why := refusal(answer)) is not None:
            if named is None:
                self._left.discard(prompt_id)  # refused as a whole
            raise RenderFailure(f"the server refuses the graph: {why}")
        if status != 200 or named is None:
            raise ServerFault(f"{self.name}: /prompt answers {status} without a prompt_id")
        return named

    async def _follow(self, prompt_id: str, progress: Progress) -> bool:
        """Wait until the history is worth a look; return False if that is because time is up."""
        clock = asyncio.get_running_loop().time
        deadline, started = clock() + self._patience.task, False
        while not progress.over:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await self._wire.receive()
            except TimeoutError:
                await self._wire.disconnect()  # a message may have been cut off
                return False
            if message is None:
                await self._wire.connect()
                if await self._place(prompt_id) is None:  # it ended meanwhile, or the server was restarted
                    return True
            else:
                progress.feed(message)
            if progress.started and not started:
                deadline, started = clock() + self._patience.task, True
        return True

    async def _history(self, prompt_id: str, patience: float) -> Mapping[str, Any] | None:
        clock = asyncio.get_running_loop().time
        deadline, pause = clock() + patience, _SHORTEST
        while True:
            _, content = await self._wire.request("GET", f"history/{prompt_id}")
            history = parse(content)
            entry = history.get(prompt_id) if isinstance(history, dict) else None
            if isinstance(entry, dict):
                return entry
            if clock() >= deadline:
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    async def _view(self, query: Mapping[str, str]) -> bytes:
        status, content = await self._wire.request("GET", "view", query=query, limit=MAX_IMAGE_BYTES)
        if status != 200:
            raise ServerFault(f"{self.name}: /view answers {status} for {query['filename']}")
        return content

    async def _place(self, prompt_id: str) -> Literal["queue_running", "queue_pending"] | None:
        """Return where in the server's queue a prompt is."""
        status, content = await self._wire.request("GET", "queue")
        queue = parse(content)
        if status != 200 or not isinstance(queue, dict):
            raise ServerFault(f"{self.name}: /queue answers {status}")
        for place in ("queue_running", "queue_pending"):
            entries = queue.get(place)
            for entry in entries if isinstance(entries, list) else []:
                if isinstance(entry, list) and len(entry) > 1 and entry[1] == prompt_id:
                    return place
        return None

    async def _withdraw(self, prompt_id: str) -> bool:
        """Ask the server to give up this prompt and no other; return whether it has."""
        place = await self._place(prompt_id)
        if place == "queue_pending":
            await self._wire.request("POST", "queue", {"delete": [prompt_id]})
        elif place == "queue_running":
            await self._wire.request("POST", "interrupt", {"prompt_id": prompt_id})
        return place is None


def _canonical(name: object) -> str | None:
    """Return a prompt's id if it is one: it becomes part of an address."""
    try:
        return name if isinstance(name, str) and str(UUID(name)) == name else None
    except ValueError:
        return None
