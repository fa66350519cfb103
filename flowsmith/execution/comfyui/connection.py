"""HTTP and websocket of one server, with every answer bounded in time and size."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import aiohttp
from yarl import URL

from flowsmith.execution.comfyui.errors import ServerFault, ServerSetupError

MAX_DUMP_BYTES = 512 << 20
"""Longest answer of /object_info; installations with many custom nodes send 100 MB."""

MAX_IMAGE_BYTES = 128 << 20
"""Longest picture and longest websocket message."""

MAX_JSON_BYTES = 64 << 20
"""Longest other answer."""

_HEARTBEAT = 30.0  # seconds between pings; a server that is loading a model is slow to answer them


class Connection:
    """One client of one server.

    Args:
        url: Where the server is.
        session: What carries the requests; limits of time are its own.
        patience: Seconds within which the websocket must open.
    """

    def __init__(self, url: URL, session: aiohttp.ClientSession, patience: float) -> None:
        self._url, self._session, self._patience = url, session, patience
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.client_id = uuid4().hex
        self.name = shown_url(url)

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
        limit: int = MAX_JSON_BYTES,
    ) -> tuple[int, bytes]:
        """Return status and content of an answer.

        Args:
            method: "GET" or "POST".
            path: Below the server's address.
            body: Sent as JSON.
            query: Sent in the address, escaped.
            limit: Most bytes of the answer.

        Raises:
            ServerFault: No answer, or one that is too long.
        """
        address = self._url.joinpath(*path.split("/"))
        content = bytearray()
        with self._faults(path):
            # No redirects: a server decides about itself, not about where we go next.
            async with self._session.request(
                method, address, json=body, params=query, allow_redirects=False
            ) as response:
                async for chunk in response.content.iter_chunked(1 << 16):
                    content += chunk
                    if len(content) > limit:
                        raise ServerFault(f"{self.name}: /{path} answers with more than {limit} bytes")
                return response.status, bytes(content)

    async def connect(self) -> None:
        """Open the websocket unless it is open; the server knows the client again.

        Raises:
            ServerFault: It does not open.
        """
        if self._socket is not None and not self._socket.closed:
            return
        with self._faults("ws"):
            async with asyncio.timeout(self._patience):
                self._socket = await self._session.ws_connect(
                    self._url.joinpath("ws"),
                    params={"clientId": self.client_id},
                    heartbeat=_HEARTBEAT,
                    max_msg_size=MAX_IMAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                )

    async def receive(self) -> str | bytes | None:
        """Return the next message, text or binary; None if the connection is lost."""
        if self._socket is not None:
            message = await self._socket.receive()
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                return message.data  # type: ignore[no-any-return]
            await self.disconnect()
        return None

    async def disconnect(self) -> None:
        """Close the websocket."""
        if self._socket is not None:
            socket, self._socket = self._socket, None
            await socket.close()

    @contextmanager
    def _faults(self, path: str) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            told = " ".join(f"{type(error).__name__} {error}".split())
            raise ServerFault(f"{self.name}: no answer from /{path} ({clipped(told)})") from error


def server_url(text: str) -> URL:
    """Read a server's address.

    Raises:
        ServerSetupError: It is none.
    """
    try:
        url = URL(text)
        usable = url.scheme in ("http", "https") and bool(url.host) and not (url.query or url.fragment)
    except ValueError:
        usable = False
    if not usable:
        raise ServerSetupError(
            f"servers: {text!r} is no address of a server; write one as http://127.0.0.1:8188"
        )
    return url


def shown_url(url: URL) -> str:
    """Return an address for messages, without user and password."""
    return str(url.with_user(None)).rstrip("/")


def parse(content: str | bytes) -> Any:
    """Return what JSON says, None if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def clipped(text: object, length: int = 300) -> str:
    """Return a text of a server as messages may have it: short, and without what a terminal or a table trips over."""
    told = str(text)
    told = told if len(told) <= length else f"{told[: length - 1]}…"
    return "".join(letter if letter.isprintable() else " " for letter in told)
