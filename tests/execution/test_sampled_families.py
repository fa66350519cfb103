"""Whole ways of SDXL with its refiner, Stable Diffusion 3 and Flux.1, written out with the formulas of their papers."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ExecutionError, ModelLibrary
from flowsmith.execution.conditioning import NetworkConditions, TextEncoding
from tests.execution.layouts.small import small_checkpoint, write, write_t5_tokenizer
from tests.execution.running import Graph, evaluate, relative

SIZE = {"width": 12, "height": 16}
SHAPE = (8, 6)  # the small VAEs have a latent for two pixels a side


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ModelLibrary:
    root = tmp_path_factory.mktemp("families")
    write_t5_tokenizer(root / "text_encoders" / "t5_tokenizer")
    for family in ("sdxl", "sdxl_refiner", "sd3", "flux"):
        write(small_checkpoint(family), root / "checkpoints" / f"{family}.safetensors")
    return ModelLibrary(root)


def node(name: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": name, "inputs": inputs}


def loader(family: str) -> dict[str, Any]:
    return node("CheckpointLoaderSimple", ckpt_name=f"{family}.safetensors")


def noise(seed: int, channels: int) -> Tensor:
    return torch.randn(1, channels, *SHAPE, generator=torch.Generator().manual_seed(seed))


def told(encoding: TextEncoding, sizes: tuple[float, ...] = (), guidance: float = 0.0) -> NetworkConditions:
    pooled = None if encoding.pooled is None else encoding.pooled[None]
    return NetworkConditions(encoding.states[None], pooled, torch.tensor([sizes]), torch.tensor([guidance]))


def along(model: Any, x: Tensor, sigmas: tuple[float, ...], sides: Any, guidance: float) -> Tensor:
    """Walk with Euler's method; ``sides`` are what the network is told of the positive and the negative."""
    for sigma, target in pairwise(sigmas):
        seen = x / (sigma**2 + 1) ** 0.5 if model.prediction == "epsilon" else x
        step = torch.tensor(model.table.timestep(sigma))
        outputs = [model(seen, step, side) for side in sides]
        slope = outputs[-1] + guidance * (outputs[0] - outputs[-1])
        x = x + slope * (target - sigma)
    return x


def test_sdxl_hands_over_to_its_refiner(library: ModelLibrary) -> None:
    """Sizes as told, or those of the latents; the negative text is encoded and told to be less pretty."""
    sizes = {"width": 200, "height": 100, "crop_w": 4, "crop_h": 3, "target_width": 48, "target_height": 64}
    half = {"steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "noise_seed": 5}
    graph: Graph = {
        "base": loader("sdxl"),
        "refiner": loader("sdxl_refiner"),
        "positive": node("CLIPTextEncodeSDXL", clip=["base", 1], text_g="a cat", text_l="red", **sizes),
        "negative": node("CLIPTextEncode", clip=["base", 1], text=""),
        "pretty": node("CLIPTextEncodeSDXLRefiner", clip=["refiner", 1], text="a cat", ascore=7.0, width=40, height=30),
        "ugly": node("CLIPTextEncode", clip=["refiner", 1], text=""),
        "empty": node("EmptyLatentImage", **SIZE, batch_size=1),
        "first": node(
            "KSamplerAdvanced", model=["base", 0], positive=["positive", 0], negative=["negative", 0],
            latent_image=["empty", 0], add_noise="enable", start_at_step=0, end_at_step=2,
            return_with_leftover_noise="enable", **half,
        ),
        "last": node(
            "KSamplerAdvanced", model=["refiner", 0], positive=["pretty", 0], negative=["ugly", 0],
            latent_image=["first", 0], add_noise="disable", start_at_step=2, end_at_step=99,
            return_with_leftover_noise="disable", **half,
        ),
    }  # fmt: skip
    got = evaluate(library, graph, list(graph))["last"][0]
    base, refiner = library.checkpoint("sdxl.safetensors"), library.checkpoint("sdxl_refiner.safetensors")
    assert base.text is not None
    assert refiner.text is not None
    with torch.inference_mode():
        cat, nothing = base.text.encode([{"g": "a cat", "l": "red"}, ""])
        table = base.model.table
        sigmas = (*(table.sigma(t) for t in (999, 666, 333, 0)), 0.0)
        x = noise(5, 4) * (1 + sigmas[0] ** 2) ** 0.5
        own = (16, 12, 0, 0, 16, 12)
        sides = [told(cat, (100, 200, 3, 4, 64, 48, 6.0)), told(nothing, (*own, 2.5))]
        x = along(base.model, x, sigmas[:3], sides, 3.0)
        cat, nothing = refiner.text.encode(["a cat", ""])
        sides = [told(cat, (30, 40, 0, 0, 30, 40, 7.0)), told(nothing, (*own, 2.5))]
        x = along(refiner.model, x, sigmas[2:], sides, 3.0)
    assert relative(got, x / 0.13025) < 1e-4


def test_flux_by_its_own_nodes(library: ModelLibrary) -> None:
    """No guidance but what the network is told; times are shifted for the picture's size."""
    graph: Graph = {
        "flux": loader("flux"),
        "text": node("CLIPTextEncode", clip=["flux", 1], text="a cat"),
        "told": node("FluxGuidance", conditioning=["text", 0], guidance=2.0),
        "model": node("ModelSamplingFlux", model=["flux", 0], max_shift=1.15, base_shift=0.5, width=256, height=256),
        "guider": node("BasicGuider", model=["model", 0], conditioning=["told", 0]),
        "noise": node("RandomNoise", noise_seed=5),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["model", 0], scheduler="simple", steps=4, denoise=1.0),
        "empty": node("EmptySD3LatentImage", **SIZE, batch_size=1),
        "sample": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["sampler", 0],
            sigmas=["sigmas", 0], latent_image=["empty", 0],
        ),
        "image": node("VAEDecode", samples=["sample", 0], vae=["flux", 2]),
    }  # fmt: skip
    values = evaluate(library, graph, list(graph))
    checkpoint = library.checkpoint("flux.safetensors")
    assert checkpoint.text is not None
    shift = torch.tensor(0.5).exp().item()
    sigmas = (*(shift / (shift + 1 / t - 1) for t in (1.0, 0.75, 0.5, 0.25)), 0.0)
    assert values["sigmas"][0] == pytest.approx(sigmas, rel=1e-5)
    with torch.inference_mode():
        (cat,) = checkpoint.text.encode(["a cat"])
        x = along(checkpoint.model, noise(5, 16), sigmas, [told(cat, guidance=2.0)], 1.0)
    latents, guess = values["sample"]
    assert relative(latents, x / 0.3611 + 0.1159) < 1e-4
    assert torch.equal(latents, guess)
    assert checkpoint.vae is not None
    with torch.inference_mode():
        torch.testing.assert_close(values["image"][0], checkpoint.vae.decode(latents))


@pytest.mark.parametrize("denoise", [1.0, 0.5])
def test_stable_diffusion_3_from_noise_and_from_a_picture(library: ModelLibrary, denoise: float) -> None:
    start = torch.randn(1, 16, *SHAPE, generator=torch.Generator().manual_seed(1))
    graph: Graph = {
        "sd3": loader("sd3"),
        "model": node("ModelSamplingSD3", model=["sd3", 0], shift=2.0),
        "positive": node("CLIPTextEncode", clip=["sd3", 1], text="a cat"),
        "negative": node("CLIPTextEncode", clip=["sd3", 1], text=""),
        "sample": node(
            "KSampler", model=["model", 0], positive=["positive", 0], negative=["negative", 0], seed=5, steps=2,
            cfg=4.0, sampler_name="euler", scheduler="sgm_uniform", denoise=denoise, latent_image=start,
        ),
    }  # fmt: skip
    got = evaluate(library, graph, list(graph))["sample"][0]
    checkpoint = library.checkpoint("sd3.safetensors")
    assert checkpoint.text is not None
    steps = int(2 / denoise)
    last = 2 * 0.001 / 1.001
    times = [1 + (last - 1) * k / steps for k in range(steps)]
    sigmas = (*(2 * t / (1 + t) for t in times), 0.0)[-3:]
    with torch.inference_mode():
        texts = checkpoint.text.encode(["a cat", ""])
        clean = (start - 0.0609) * 1.5305
        x = (1 - sigmas[0]) * clean + sigmas[0] * noise(5, 16)
        x = along(checkpoint.model, x, sigmas, [told(text) for text in texts], 4.0)
    assert relative(got, x / 1.5305 + 0.0609) < 1e-4


def test_texts_without_a_pooled_state_are_refused_by_name(library: ModelLibrary) -> None:
    graph: Graph = {
        "sd3": loader("sd3"),
        "text": node("CLIPTextEncode", clip=["sd3", 1], text="a cat"),
        "empty": node("EmptyLatentImage", **SIZE),
    }
    values = evaluate(library, graph, list(graph))
    bare = values["text"][0].each(pooled=None)
    how = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    row = {
        "model": values["sd3"][0],
        "latent_image": values["empty"][0],
        "positive": bare,
        "negative": bare,
        **how,
    }
    with pytest.raises(ExecutionError, match="pooled"):
        evaluate(library, {"x": node("KSampler", **row)}, ["x"])
