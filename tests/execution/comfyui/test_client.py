"""One server: what it answers to a prompt, how much of it is read, and what is left behind."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest
import torch
from aiohttp import web
from yarl import URL

from flowsmith.execution.comfyui.client import Patience, Server
from flowsmith.execution.comfyui.connection import Connection, server_url, shown_url
from flowsmith.execution.comfyui.delivery import Delivery
from flowsmith.execution.comfyui.errors import RenderFailure, ServerFault, ServerSetupError
from flowsmith.flows import Schema
from tests.execution.comfyui.fake_server import FakeServer
from tests.execution.comfyui.fleet import object_info, picture, tasks
from tests.flows_for_tests import some_flows

T = TypeVar("T")
TASK = tasks(1)[0]
GRAPH = TASK.flow.to_comfyui(TASK.prompt, TASK.seed, Schema.core())
PATIENCE = Patience(task=5.0, answer=2.0, revival=1.0)


def talk(
    work: Callable[[Server, FakeServer], Awaitable[T]],
    delivery: Delivery = "websocket",
    patience: Patience = PATIENCE,
    **options: Any,
) -> T:
    """Run something against one fake server."""

    async def run() -> T:
        fake = FakeServer(object_info(some_flows(5)), **options)
        await fake.start()
        try:
            async with patience.session() as session:
                server = Server(URL(fake.url), session, patience, delivery)
                await server.make_ready()
                try:
                    return await work(server, fake)
                finally:
                    await server.leave()
        finally:
            await fake.die()

    return asyncio.run(run())


@pytest.mark.parametrize("delivery", ["websocket", "view"])
@pytest.mark.parametrize("chooses_ids", [False, True])
def test_the_same_graph_twice_gives_the_same_picture_each_made_anew(
    delivery: Delivery, chooses_ids: bool
) -> None:
    seen: list[float] = []
    took: list[float] = []

    async def work(server: Server, fake: FakeServer) -> int:
        for _ in range(2):
            image, seconds = await server.render(GRAPH, seen.append)
            assert torch.equal(image, picture(TASK))
            took.append(seconds)
        return len(fake.files)

    files = talk(work, delivery, chooses_ids=chooses_ids, seconds=0.5)
    assert files == (2 if delivery == "view" else 0)
    assert seen.count(1.0) == 2
    assert took[0] > 0.4  # the second time, only the picture is saved anew
    assert took[1] > 0


def test_partial_success_is_a_failure_and_the_rest_is_withdrawn() -> None:
    broken = {"class_type": "SaveImage", "inputs": {"images": ["404", 0], "filename_prefix": "x"}}

    async def work(server: Server, fake: FakeServer) -> None:
        with pytest.raises(RenderFailure, match=r"node 99 .* \[exception_during_validation\]"):
            await server.render({**GRAPH, "99": broken})
        assert len(fake.posted) == 1
        await server.make_ready()
        assert (fake.running, fake.pending) == (None, [])
        assert len(fake.interrupted) == 1
        assert torch.equal((await server.render(GRAPH))[0], picture(TASK))

    talk(work, plan=lambda graph: "stall" if "99" in graph else None)


def test_what_is_refused_as_a_whole_says_why() -> None:
    async def work(server: Server, fake: FakeServer) -> None:
        unknown = {"7": {"class_type": "NoSuchNode", "inputs": {}}}
        with pytest.raises(
            RenderFailure, match=r"refuses the graph: \[missing_node_type\] Node 'NoSuchNode'"
        ):
            await server.render({**GRAPH, **unknown})
        wrong = {name: {**node, "inputs": dict(node["inputs"])} for name, node in GRAPH.items()}
        loader = next(n for n in wrong.values() if n["class_type"] == "CheckpointLoaderSimple")
        loader["inputs"]["ckpt_name"] = "absent.safetensors"
        with pytest.raises(RenderFailure, match="value_not_in_list"):
            await server.render(wrong)

    talk(work)


def test_a_node_that_fails_is_named() -> None:
    async def work(server: Server, fake: FakeServer) -> None:
        wrong = {name: {**node, "inputs": dict(node["inputs"])} for name, node in GRAPH.items()}
        next(n for n in wrong.values() if n["class_type"] == "VAEDecode")["inputs"]["samples"] = "hello"
        with pytest.raises(RenderFailure, match=r"\(VAEDecode\) AttributeError: 'str' object has no"):
            await server.render(wrong)

    talk(work)


@pytest.mark.parametrize(
    ("fault", "delivery"),
    [("disorder", "websocket"), ("disorder", "view"), ("history lags", "websocket"), ("drop", "view")],
)
def test_what_costs_no_second_run(fault: str, delivery: Delivery) -> None:
    async def work(server: Server, fake: FakeServer) -> int:
        assert torch.equal((await server.render(GRAPH))[0], picture(TASK))
        return len(fake.posted)

    patience = Patience(task=30.0, answer=30.0)
    assert talk(work, delivery, patience, plan=lambda graph: fault, seconds=0.1) == 1


def test_time_that_is_up_is_a_fault_and_the_server_is_used_again_after_the_interrupt() -> None:
    plans = iter(["stall", None])

    async def work(server: Server, fake: FakeServer) -> None:
        with pytest.raises(ServerFault, match=r"is not done after 0\.3 s"):
            await server.render(GRAPH)
        assert fake.running is not None
        await server.make_ready()
        assert fake.running is None
        assert torch.equal((await server.render(GRAPH))[0], picture(TASK))

    talk(work, patience=Patience(task=0.3, answer=2.0), plan=lambda graph: next(plans))


def test_a_server_that_does_not_let_go_gets_no_second_prompt() -> None:
    async def work(server: Server, fake: FakeServer) -> None:
        with pytest.raises(ServerFault, match="is not done after"):
            await server.render(GRAPH)
        with pytest.raises(ServerFault, match="does not let go"):
            await server.make_ready()
        assert fake.crowd == 1

    talk(work, patience=Patience(task=0.3, answer=0.4), plan=lambda graph: "deaf")


def test_facts() -> None:
    async def work(server: Server, fake: FakeServer) -> tuple[str, bytes]:
        return await server.read_facts()

    version, dump = talk(work, version="0.3.64")
    assert version == "0.3.64"
    assert b"SaveImageWebsocket" in dump


def hostile(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], limit: int = 1000
) -> tuple[int, bytes]:
    """Ask a server that answers what it likes for /history/x."""

    async def run() -> tuple[int, bytes]:
        app = web.Application()
        app.router.add_get("/history/x", handler)
        app.router.add_get("/elsewhere", moved)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            timeout = aiohttp.ClientTimeout(sock_read=0.3)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                url = URL(f"http://127.0.0.1:{runner.addresses[0][1]}")
                return await Connection(url, session, 0.3).request("GET", "history/x", limit=limit)
        finally:
            await runner.cleanup()

    return asyncio.run(run())


async def moved(request: web.Request) -> web.Response:
    return web.Response(text="moved")


def test_answers_are_bounded_in_size_and_time() -> None:
    async def exact(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 1000)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 4096)

    async def bomb(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=b"\0" * 2_000_000)
        response.enable_compression()
        return response

    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    assert hostile(exact) == (200, b"x" * 1000)
    for handler in (endless, bomb):
        with pytest.raises(ServerFault, match=r"/history/x answers with more than 1000 bytes"):
            hostile(handler)
    with pytest.raises(ServerFault, match=r"no answer from /history/x"):
        hostile(silent)


def test_a_server_cannot_send_us_elsewhere() -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/elsewhere")

    status, content = hostile(elsewhere)
    assert status == 302
    assert b"moved" not in content


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1:8188", "ftp://a", "file:///etc/passwd", "http://", "http://a?b=c"]
)
def test_addresses_are_checked(text: str) -> None:
    with pytest.raises(ServerSetupError, match="is no address of a server; write one as"):
        server_url(text)


def test_passwords_are_not_shown() -> None:
    assert shown_url(server_url("https://me:secret@host/comfy/")) == "https://host/comfy"
