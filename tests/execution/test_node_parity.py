"""What the real ComfyUI computed with nodes beyond the nine of the first flows, on the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowsmith.execution import ModelLibrary
from tests.execution.running import RECORDED, Graph, evaluate, relative, run
from tests.tiny_world import tiny_graph

EXACT = 1e-5


def graph() -> Graph:
    return tiny_graph(**RECORDED)


def test_encoding_of_an_image(library: ModelLibrary, outputs: dict[str, Tensor]) -> None:
    vae = library.checkpoint("tiny.safetensors").vae
    latents = run(library, "VAEEncode", pixels=outputs["vae_decode"].movedim(-1, 1), vae=vae)
    assert relative(latents, outputs["vae_encode"]) < EXACT


def test_sharpening(library: ModelLibrary, outputs: dict[str, Tensor]) -> None:
    image = outputs["image/input"].movedim(-1, 1)
    sharp = run(library, "ImageSharpen", image=image, sharpen_radius=1, sigma=1.0, alpha=1.0)
    assert relative(sharp.movedim(1, -1), outputs["image/ImageSharpen"]) < EXACT


def test_rescaled_guidance(library: ModelLibrary, outputs: dict[str, Tensor]) -> None:
    nodes = graph()
    nodes["patch"] = {"class_type": "RescaleCFG", "inputs": {"model": ["1", 0], "multiplier": 0.7}}
    nodes["5"]["inputs"]["model"] = ["patch", 0]
    latents = evaluate(library, nodes, ["1", "patch", "2", "3", "4", "5"])["5"][0]
    assert relative(latents, outputs["patch/RescaleCFG"]) < EXACT


def test_text_of_an_earlier_layer(library: ModelLibrary, parity: Path) -> None:
    clip = library.checkpoint("tiny.safetensors").text
    skipped = run(library, "CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2)
    encoding = run(library, "CLIPTextEncode", clip=skipped, text="a red cat")
    with np.load(parity / "text_encodings.npz") as recorded:
        assert relative(encoding.parts[0].states, torch.from_numpy(recorded["plain_clip_skip_2"])[0]) < EXACT


def test_latents_under_text_of_an_earlier_layer(library: ModelLibrary, outputs: dict[str, Tensor]) -> None:
    """Only the positive text was encoded so."""
    nodes = graph()
    inputs: dict[str, Any] = {"clip": ["1", 1], "stop_at_clip_layer": -2}
    nodes["skip"] = {"class_type": "CLIPSetLastLayer", "inputs": inputs}
    nodes["2"]["inputs"]["clip"] = ["skip", 0]
    latents = evaluate(library, nodes, ["1", "skip", "2", "3", "4", "5"])["5"][0]
    assert relative(latents, outputs["vary/clip_skip"]) < EXACT


def test_a_way_in_two_parts(library: ModelLibrary, outputs: dict[str, Tensor]) -> None:
    nodes = graph()
    whole = {k: v for k, v in nodes["5"]["inputs"].items() if k not in ("seed", "denoise")}
    first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 3}
    last = {"add_noise": "disable", "start_at_step": 3, "end_at_step": 6, "latent_image": ["first", 0]}
    for name, part, leave in (("first", first, "enable"), ("last", last, "disable")):
        inputs = {**whole, "noise_seed": 7, "return_with_leftover_noise": leave, **part}
        nodes[name] = {"class_type": "KSamplerAdvanced", "inputs": inputs}
    values = evaluate(library, nodes, ["1", "2", "3", "4", "5", "first", "last"])
    assert relative(values["first"][0], outputs["advanced/0-3"]) < EXACT
    assert relative(values["last"][0], outputs["advanced/3-6"]) < EXACT
    assert relative(values["last"][0], values["5"][0]) < 1e-6
