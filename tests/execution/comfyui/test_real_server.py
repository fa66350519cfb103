"""A real server, named by FLOWSMITH_COMFYUI_URL; every test is skipped without it.

Those that sample also need its models folder, FLOWSMITH_COMFYUI_MODELS, to put a small random checkpoint there.
Nothing else is left behind but pictures in the server's output folder.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import uuid4

import pytest
import torch

from flowsmith.execution import ModelLibrary, RenderTask
from flowsmith.execution.comfyui import ComfyUIExecutor
from flowsmith.execution.comfyui.client import Patience, Server
from flowsmith.execution.comfyui.connection import server_url
from flowsmith.execution.comfyui.delivery import Delivery
from flowsmith.execution.comfyui.errors import RenderFailure, ServerFault
from flowsmith.execution.graph import plan_graph
from flowsmith.execution.interpreter import Interpreter
from flowsmith.flows import Codec, Domain, Flow, Grammar
from tests.flows.records import recorded
from tests.flows_for_tests import DOMAIN

T = TypeVar("T")
URL = os.environ.get("FLOWSMITH_COMFYUI_URL", "")
MODELS = os.environ.get("FLOWSMITH_COMFYUI_MODELS", "")
CHECKPOINT = "flowsmith_tiny_random.safetensors"
DELIVERIES: tuple[Delivery, ...] = ("websocket", "view")

pytestmark = pytest.mark.skipif(not URL, reason="FLOWSMITH_COMFYUI_URL names no server")


@pytest.fixture(scope="module")
def checkpoint(parity: Path) -> str:
    """Name of a random checkpoint of SD1.5's layout that the server has."""
    if not MODELS:
        pytest.skip("FLOWSMITH_COMFYUI_MODELS names no folder")
    file = Path(MODELS) / "checkpoints" / CHECKPOINT
    if not file.is_file():
        subprocess.run([sys.executable, parity / "make_checkpoint.py", "tiny", file], check=True)
    return CHECKPOINT


def talk(work: Callable[[Server], Awaitable[T]], delivery: Delivery = "websocket", **patience: float) -> T:
    """Run something against the server."""

    async def run() -> T:
        limits = Patience(**patience)
        async with limits.session() as session:
            server = Server(server_url(URL), session, limits, delivery)
            await server.make_ready()
            try:
                return await work(server)
            finally:
                await server.make_ready()
                await server.leave()

    return asyncio.run(run())


def plain(colour: int) -> dict[str, Any]:
    """Return a graph without models."""
    scale = {"image": ["1", 0], "upscale_method": "bilinear", "width": 32, "height": 16, "crop": "disabled"}
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": colour},
        },
        "2": {"class_type": "ImageScale", "inputs": scale},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }


def sampled(name: str, steps: int, seed: int) -> dict[str, Any]:
    """Return a text-to-image graph."""
    numbers = {"seed": seed, "steps": steps, "cfg": 5.0, "denoise": 1.0}
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red cat", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {**links, **numbers, "sampler_name": "euler", "scheduler": "normal"},
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
    }


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_graph_without_models(delivery: Delivery) -> None:
    executor = ComfyUIExecutor([URL], delivery=delivery)
    colour = uuid4().int % 2**24
    flow = Flow.from_comfyui(plain(colour), executor.facts[0].schema)
    for _ in range(2):  # the second time it executes nothing but the saving
        (result,) = ComfyUIExecutor([URL], delivery=delivery).render([RenderTask("a", flow, "", 0)])
        assert result.error is None
        assert result.image is not None
        expected = torch.tensor([colour >> 16, colour >> 8 & 255, colour & 255]).view(3, 1, 1)
        assert result.image.shape == (3, 16, 32)
        assert (result.image.int() - expected).abs().max() <= 1


def test_both_deliveries_give_the_same_pixels(checkpoint: str) -> None:
    async def work(server: Server) -> torch.Tensor:
        seen: list[float] = []
        image, seconds = await server.render(sampled(checkpoint, steps=4, seed=7), seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
        assert seconds > 0
        return image

    one, other = (talk(work, delivery) for delivery in DELIVERIES)
    assert one.shape == (3, 64, 64)
    assert torch.equal(one, other)
    assert one.float().std() > 0


EXACT = [
    "euler",
    "heun",
    "dpm_2",
    "lms",
    "dpmpp_2m",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
    "deis",
    "ipndm",
    "res_multistep",
]


@pytest.mark.parametrize("scheduler", ["normal", "karras"])
@pytest.mark.parametrize("sampler", EXACT)
def test_pictures_made_in_process_are_the_servers(checkpoint: str, sampler: str, scheduler: str) -> None:
    """To 1/255 on 99.9 % of pixels; a server on a GPU is asked for float32 with --force-fp32."""
    graph = sampled(checkpoint, steps=6, seed=7)
    graph["5"]["inputs"] |= {"sampler_name": sampler, "scheduler": scheduler}

    async def work(server: Server) -> torch.Tensor:
        image, _ = await server.render(graph)
        return image

    ((_, outcome),) = Interpreter(ModelLibrary(MODELS)).run([plan_graph(graph)])
    assert outcome.error is None
    apart = (talk(work).int() - outcome.values[-1].int()).abs()
    assert float((apart <= 1).float().mean()) >= 0.999


def test_an_interrupt_by_time(checkpoint: str) -> None:
    async def work(server: Server) -> None:
        with pytest.raises(ServerFault, match="is not done after 2 s"):
            await server.render(sampled(checkpoint, steps=9000, seed=1))
        await server.make_ready()  # it lets go within the patience
        await server.render(plain(1))

    async def warm(server: Server) -> None:
        await server.render(sampled(checkpoint, steps=1, seed=1))

    talk(warm)
    talk(work, task=2.0)


def test_every_recorded_refusal() -> None:
    async def work(server: Server) -> None:
        for name, case in recorded("server_errors.json").items():
            graph, body = case["prompt"], case["body"]
            try:
                await server._post(graph, str(uuid4()))
                outcome = "taken"
            except RenderFailure as error:
                outcome = str(error)
            except ServerFault:
                outcome = "fault"
            await server.make_ready()
            if not isinstance(body, dict):
                assert outcome == "fault", name
                continue
            errors = [e["type"] for n in body["node_errors"].values() for e in n["errors"]]
            if not errors and "error" in body:
                errors = [body["error"]["type"]]
            assert (outcome == "taken") == (not errors), name
            assert not errors or errors[0] in outcome, name

    talk(work)


def test_two_hundred_random_walks_are_accepted(checkpoint: str) -> None:
    content = Domain.from_yaml(DOMAIN).to_json()
    for name in ("LoraLoader", "VAELoader", "UpscaleModelLoader", "ImageUpscaleWithModel"):
        del content["classes"][name]
    content["values"]["CheckpointLoaderSimple.ckpt_name"] = [checkpoint]
    kept = {key: grid for key, grid in content["values"].items() if key.split(".")[0] in content["classes"]}
    domain = Domain.from_json({**content, "values": kept, "upscale_factors": {}})
    schema = ComfyUIExecutor([URL]).facts[0].schema
    codec = Codec(domain.restrict(schema), domain)
    grammar, rng = Grammar(codec, 80), Random(0)

    async def work(server: Server) -> None:
        for number in range(200):
            flow = codec.decode(grammar.random_walk(rng))
            await server._post(flow.to_comfyui(f"a cat {number}", number, schema), str(uuid4()))
            await server.make_ready()

    talk(work)
