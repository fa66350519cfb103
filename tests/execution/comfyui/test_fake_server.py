"""The fake server says what the real one said."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.execution.comfyui.fake_graph import Graph
from tests.execution.comfyui.fake_server import FakeServer
from tests.execution.comfyui.recordings import session, simplified, websocket

_LINKS = {"images": "IMAGE", "image": "IMAGE", "model": "MODEL", "clip": "CLIP", "vae": "VAE"}
_LINKS |= {
    "samples": "LATENT",
    "latent_image": "LATENT",
    "positive": "CONDITIONING",
    "negative": "CONDITIONING",
}


def _dump(*graphs: Graph) -> dict[str, Any]:
    """Describe the nodes of some graphs as far as the fake server looks at them."""
    dump: dict[str, Any] = {}
    for node in (node for graph in graphs for node in graph.values()):
        entry = dump.setdefault(node["class_type"], {"input": {"required": {}}, "output": []})
        entry["output_node"] = node["class_type"].startswith("SaveImage")
        for key, value in node["inputs"].items():
            kind = _LINKS.get(key, "INT" if isinstance(value, int) else "STRING")
            entry["input"]["required"][key] = [kind, {"min": 0} if kind == "INT" else {}]
    return dump


async def _talk(server: FakeServer, graphs: list[Graph], stop_after: int | None = None) -> dict[str, Any]:
    """Run graphs one after the other; return the messages and answers of the last."""
    await server.start()
    try:
        async with aiohttp.ClientSession(server.url) as client:
            for graph in graphs:
                said = await _run(client, server, graph, stop_after)
    finally:
        await server.die()
    return said


async def _run(
    client: aiohttp.ClientSession, server: FakeServer, graph: Graph, stop_after: int | None
) -> dict[str, Any]:
    messages: list[Any] = []
    async with client.ws_connect("/ws", params={"clientId": "c"}) as socket:
        messages.append(await socket.receive_json())
        async with client.post("/prompt", json={"prompt": graph, "client_id": "c"}) as response:
            answer, status = await response.json(), response.status
        name = answer.get("prompt_id")
        steps = 0
        while status == 200:
            message = await asyncio.wait_for(socket.receive(), 10)
            if message.type is aiohttp.WSMsgType.BINARY:
                messages.append(len(message.data))
                continue
            messages.append(message.json())
            kind, data = messages[-1]["type"], messages[-1]["data"]
            steps += kind == "progress"
            if steps == stop_after:
                await client.post("/interrupt", json={"prompt_id": name})
                stop_after = None
            ended = kind == "status" and messages[-2]["type"] in ("execution_error", "execution_interrupted")
            if ended or (kind == "executing" and data["node"] is None):
                break
        history = await (await client.get(f"/history/{name}")).json()
    return {"status": status, "answer": answer, "messages": messages, "history": history}


def _shape(answer: dict[str, Any]) -> Any:
    errors = {
        node: sorted(error["type"] for error in found["errors"])
        for node, found in answer.get("node_errors", {}).items()
    }
    return sorted(answer), (answer.get("error") or {}).get("type"), errors


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("success_model_free", None),
        ("cached_identical_graph", "success_model_free"),
        ("success_text_to_image_partly_cached", "success_text_to_image"),
        ("runtime_error", None),
        ("rejected", None),
        ("partly_rejected", None),
        ("websocket_image", None),
    ],
)
def test_messages_and_answers_are_those_that_were_recorded(name: str, before: str | None) -> None:
    events = session(name)
    earlier = [session(before)[0]["request"]["prompt"]] if before else []
    graph = events[0]["request"]["prompt"]
    said = asyncio.run(_talk(FakeServer(_dump(*earlier, graph)), [*earlier, graph]))

    assert said["status"] == events[0]["status"]
    assert _shape(said["answer"]) == _shape(events[0]["body"])
    assert simplified(said["messages"]) == simplified(websocket(events))
    recorded = [e for e in events if e["kind"] == "GET /history/{prompt_id}"]
    if recorded:
        (entry,), (theirs,) = said["history"].values(), recorded[0]["body"].values()
        assert entry["outputs"].keys() == theirs["outputs"].keys()
        for key in ("status_str", "completed"):
            assert entry["status"][key] == theirs["status"][key]
        assert [m[0] for m in entry["status"]["messages"]] == [m[0] for m in theirs["status"]["messages"]]


def test_an_interrupt_ends_as_it_was_recorded() -> None:
    events = session("interrupted")
    graph = events[0]["request"]["prompt"]
    said = asyncio.run(_talk(FakeServer(_dump(graph), seconds=2.0), [graph], stop_after=1))

    theirs, ours = websocket(events), said["messages"]
    assert simplified(ours)[-2:] == simplified(theirs)[-2:]
    ended, recorded = ours[-2]["data"], theirs[-2]["data"]
    assert (ended["node_type"], sorted(ended["executed"])) == ("KSampler", sorted(recorded["executed"]))
    (entry,) = said["history"].values()
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
