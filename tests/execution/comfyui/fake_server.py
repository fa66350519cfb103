"""A server that speaks ComfyUI's protocol as it was recorded, paints instead of sampling, and fails where told.

`test_fake_server.py` holds its messages against the recordings.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

from aiohttp import WSMsgType, web

from tests.execution.comfyui.fake_graph import Graph, ends, key_of, order, painted, png, refuse, runtime_error

Plan = Callable[[Graph], str | None]
"""Says what goes wrong with a graph that is posted, if anything."""

_SAMPLERS = ("KSampler", "KSamplerAdvanced")


class FakeServer:
    """One server; lives in a running loop.

    Args:
        dump: Answer of /object_info.
        plan: What goes wrong.
        version: Of ComfyUI.
        seconds: Time that a prompt takes.
        chooses_ids: Whether it gives prompts its own ids, as older servers do.

    Attributes:
        messages: Everything that was sent over websockets, in order; bytes as their length.
        posted: Graphs of all prompts that were queued.
        crowd: Most prompts that it ever held at once.
        interrupted: Ids that an interrupt hit.
    """

    def __init__(
        self,
        dump: Mapping[str, Any],
        plan: Plan = lambda graph: None,
        version: str = "0.33.0",
        seconds: float = 0.0,
        chooses_ids: bool = False,
    ) -> None:
        self.dump, self.plan, self.version, self.seconds = dict(dump), plan, version, seconds
        self.chooses_ids, self.port, self.downtime = chooses_ids, 0, 0.05
        self.messages: list[Any] = []
        self.posted: list[Graph] = []
        self.interrupted: list[str] = []
        self.crowd, self.number = 0, 0
        self.frozen = False
        self._forget()

    def _forget(self) -> None:
        """Have nothing in memory, as after a start."""
        self.pending: list[dict[str, Any]] = []
        self.running: dict[str, Any] | None = None
        self.history: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}  # of nodes by what they depend on: the server's cache
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.stop, self.wake = asyncio.Event(), asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._forget()
        app = web.Application(middlewares=[self._freeze], client_max_size=1 << 26)
        app.add_routes(
            [
                web.get("/ws", self._ws),
                web.post("/prompt", self._prompt),
                web.get("/queue", self._queue),
                web.post("/queue", self._delete),
                web.post("/interrupt", self._interrupt),
                web.get("/history/{id}", self._history),
                web.get("/view", self._view),
                web.get("/object_info", self._object_info),
                web.get("/system_stats", self._system_stats),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._worker = asyncio.create_task(self._work())

    async def die(self) -> None:
        """Drop all connections and listen no more."""
        self.frozen = False
        self._worker.cancel()
        for socket in list(self.sockets.values()):
            _cut(socket)
        await self._runner.cleanup()

    async def restart(self) -> None:
        await self.die()
        await asyncio.sleep(self.downtime)
        await self.start()

    @web.middleware
    async def _freeze(self, request: web.Request, handler: Any) -> web.StreamResponse:
        while self.frozen:
            await asyncio.sleep(0.02)
        response: web.StreamResponse = await handler(request)
        return response

    # What clients ask for.

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client = request.query.get("clientId") or uuid4().hex
        self.sockets[client] = socket
        await self._status(client, sid=client)
        if self.running is not None and self.running["client"] == client:  # one that came back
            await self._send(client, "executing", {"node": self.running["node"]})
        async for message in socket:
            if message.type is WSMsgType.ERROR:
                break
        if self.sockets.get(client) is socket:
            del self.sockets[client]
        return socket

    async def _object_info(self, request: web.Request) -> web.Response:
        return _json(self.dump)

    async def _system_stats(self, request: web.Request) -> web.Response:
        return _json({"system": {"comfyui_version": self.version}})

    async def _prompt(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        graph = body["prompt"]
        if not isinstance(graph, dict) or not all(isinstance(node, dict) for node in graph.values()):
            return web.Response(status=500, text="500 Internal Server Error")
        fault = self.plan(graph)
        if fault == "error 500":
            return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")
        refused = refuse(self.dump, graph)
        if refused is not None and "error" in refused:
            return _json(refused, status=400)
        wanted = body.get("prompt_id")
        name = wanted if wanted and not self.chooses_ids and str(UUID(wanted)) == wanted else str(uuid4())
        errors = refused["node_errors"] if refused else {}
        bad = {end for error in errors.values() for end in error["dependent_outputs"]}
        item = {"id": name, "number": self.number, "graph": graph, "client": body["client_id"], "node": None}
        item |= {
            "fault": fault,
            "misbehaved": False,
            "outputs": [n for n in ends(self.dump, graph) if n not in bad],
        }
        self.number += 1
        self.pending.append(item)
        self.posted.append(graph)
        self.crowd = max(self.crowd, len(self.pending) + (self.running is not None))
        await self._status(item["client"])
        self.wake.set()
        if fault == "answer lost":
            return web.Response(status=500, text="queued, but the answer is lost")
        return _json({"prompt_id": name, "number": item["number"], "node_errors": errors})

    async def _queue(self, request: web.Request) -> web.Response:
        running = [self.running] if self.running is not None else []
        listed = {"queue_running": running, "queue_pending": self.pending}
        return _json({key: [[i["number"], i["id"]] for i in items] for key, items in listed.items()})

    async def _delete(self, request: web.Request) -> web.Response:
        names = (await request.json())["delete"]
        self.pending = [item for item in self.pending if item["id"] not in names]
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        name = (await request.json())["prompt_id"]
        if self.running is not None and self.running["id"] == name:
            self.interrupted.append(name)
            self.stop.set()
        return web.Response()

    async def _history(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return _json({name: self.history[name]} if name in self.history else {})

    async def _view(self, request: web.Request) -> web.Response:
        query = request.query
        content = self.files.get((query["type"], query["subfolder"], query["filename"]))
        return web.Response(status=404) if content is None else web.Response(body=content)

    # How prompts run.

    async def _work(self) -> None:
        while True:
            while not self.pending:
                self.wake.clear()
                await self.wake.wait()
            self.running = self.pending.pop(0)
            self.stop.clear()
            item = self.running
            await self._status(item["client"])
            ending, outputs, messages = await self._run(item)
            good = ending == "execution_success"
            status = {"status_str": "success" if good else "error", "completed": good, "messages": messages}
            entry = {"outputs": outputs, "status": status}
            if item["fault"] == "history lags":
                asyncio.get_running_loop().call_later(0.3, self.history.__setitem__, item["id"], entry)
            elif item["fault"] != "history lost":
                self.history[item["id"]] = entry
            self.running = None
            await self._status(item["client"])
            if ending == "execution_success":
                await self._send(item["client"], "executing", {"node": None, "prompt_id": item["id"]})

    async def _run(self, item: dict[str, Any]) -> tuple[str, dict[str, Any], list[Any]]:
        name, client, graph, fault = item["id"], item["client"], item["graph"], item["fault"]
        nodes = order(graph, item["outputs"])
        keys = {node: key_of(graph, node) for node in nodes}
        cached = [node for node in nodes if keys[node] in self.outputs]
        if fault == "old file":  # as if it had executed the very graph before
            self.files["output", "flowsmith", "old_00001_.png"] = png(b"old")
            old = {"filename": "old_00001_.png", "subfolder": "flowsmith", "type": "output"}
            self.outputs |= {keys[node]: {} for node in nodes} | {keys[nodes[-1]]: {"images": [old]}}
            cached = nodes
        messages: list[Any] = []

        async def told(kind: str, **data: Any) -> None:
            data |= {"prompt_id": name, "timestamp": time.time_ns() // 1_000_000}
            messages.append([kind, data])
            await self._send(client, kind, data)

        await told("execution_start")
        await told("execution_cached", nodes=cached)
        outputs: dict[str, Any] = {}
        states: dict[str, Any] = {}

        async def state(node: str, value: float, most: float, said: str = "running") -> None:
            states[node] = {"value": value, "max": most, "state": said, "node_id": node, "prompt_id": name}
            await self._send(client, "progress_state", {"prompt_id": name, "nodes": dict(states)})

        async def step(node: str, value: int, most: int) -> None:
            await state(node, value, most)
            await self._send(
                client, "progress", {"value": value, "max": most, "prompt_id": name, "node": node}
            )

        async def executed(node: str) -> None:
            outputs[node] = self.outputs[keys[node]]
            data = {"node": node, "display_node": node, "output": outputs[node], "prompt_id": name}
            await self._send(client, "executed", data)

        for place, node in enumerate(nodes):
            kind, inputs = graph[node]["class_type"], graph[node]["inputs"]
            if node in cached:
                if self.outputs[keys[node]]:
                    await executed(node)
                    await state(node, 1, 1, "finished")
                continue
            await state(node, 0.0, 1.0)
            item["node"] = node
            await self._send(client, "executing", {"node": node, "display_node": node, "prompt_id": name})
            if place >= len(nodes) // 2:
                await self._misbehave(item)
            error = runtime_error(self.dump, kind, inputs)
            if fault == "out of memory":
                error = {"exception_type": "torch.OutOfMemoryError", "exception_message": "out of memory"}
            if error is not None:
                await told("execution_error", node_id=node, node_type=kind, executed=nodes[:place], **error)
                return "execution_error", outputs, messages
            most: float = 1.0
            if kind in _SAMPLERS:
                most = inputs["steps"]
                first, last = sorted((1, inputs["steps"]), reverse=fault == "disorder")
                await step(node, first, inputs["steps"])
            if await self._interrupted(self.seconds / len(nodes)):
                await told("execution_interrupted", node_id=node, node_type=kind, executed=nodes[:place])
                return "execution_interrupted", outputs, messages
            if kind in _SAMPLERS and last != first:
                await step(node, last, inputs["steps"])
            if kind == "SaveImageWebsocket":
                most = 1
                await step(node, 0, 1)
                if fault != "picture lost":
                    picture = b"not a png" if fault == "broken picture" else png(painted(graph))
                    await self._send_picture(client, picture)
            elif kind == "SaveImage":
                folder, _, prefix = inputs["filename_prefix"].rpartition("/")
                counter = 1 + sum(k[1] == folder and k[2].startswith(prefix) for k in self.files)
                file = {"filename": f"{prefix}_{counter:05d}_.png", "subfolder": folder, "type": "output"}
                picture = b"not a png" if fault == "broken picture" else png(painted(graph))
                self.files["output", folder, file["filename"]] = picture
                if fault == "hostile name":
                    file["filename"] = "../../../etc/passwd"
                self.outputs[keys[node]] = {"images": [file]}
                await executed(node)
            else:
                self.outputs[keys[node]] = {}
            await state(node, most, most, "finished")
        await told("execution_success")
        return "execution_success", outputs, messages

    async def _misbehave(self, item: dict[str, Any]) -> None:
        """Do what is planned half way, once."""
        client, socket = item["client"], self.sockets.get(item["client"])
        fault = None if item["misbehaved"] else item["fault"]
        item["misbehaved"] = True
        if fault == "drop" and socket is not None:
            _cut(socket)
            await asyncio.sleep(0.02)
        elif fault == "stall":
            await self.stop.wait()
        elif fault == "deaf":
            await asyncio.sleep(3600)
        elif fault == "freeze":
            self.frozen = True
            await asyncio.sleep(3600)
        elif fault in ("die", "restart"):
            asyncio.get_running_loop().create_task(self.die() if fault == "die" else self.restart())
            await asyncio.sleep(3600)
        elif fault == "disorder" and socket is not None:
            other = str(uuid4())
            foreign: list[Any] = [
                ["executing", {"node": None, "prompt_id": other}],
                ["execution_error", {"prompt_id": other}],
            ]
            for kind, said in [*foreign, ["progress", {"node": 7, "max": "x", "prompt_id": item["id"]}]]:
                await self._send(client, kind, said)
            for text in ("not json", "[1]", '{"type": 1}', '{"type": "executing", "data": 3}', "[" * 9000):
                await socket.send_str(text)
            for data in (b"", b"\0\0\0\1", b"\0\0\0\1\0\0\0\1jpeg", b"\0\0\0\1\0\0\0\2" + png(b"no!")):
                await socket.send_bytes(data)

    async def _interrupted(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)
        return self.stop.is_set()

    async def _status(self, client: str, sid: str | None = None) -> None:
        left = len(self.pending) + (self.running is not None)
        data: dict[str, Any] = {"status": {"exec_info": {"queue_remaining": left}}}
        await self._send(client, "status", data | ({"sid": sid} if sid else {}))

    async def _send(self, client: str, kind: str, data: Any) -> None:
        self.messages.append({"type": kind, "data": data})
        if (socket := self.sockets.get(client)) is not None:
            with suppress(ConnectionError):
                await socket.send_str(json.dumps({"type": kind, "data": data}))

    async def _send_picture(self, client: str, content: bytes) -> None:
        head = (1).to_bytes(4, "big") + (2).to_bytes(4, "big")  # event 1, a picture; format 2, PNG
        self.messages.append(len(head + content))
        if (socket := self.sockets.get(client)) is not None:
            with suppress(ConnectionError):
                await socket.send_bytes(head + content)


def _cut(socket: web.WebSocketResponse) -> None:
    transport = socket._req.transport if socket._req is not None else None
    if transport is not None:
        transport.abort()  # no farewell


def _json(content: Any, status: int = 200) -> web.Response:
    return web.json_response(content, status=status)
