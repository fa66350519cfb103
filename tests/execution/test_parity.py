"""Against what the real ComfyUI computed on the same weights: sigmas aside, every recorded output is compared."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flowsmith.execution.samplers import SAMPLERS
from tests.execution.recordings import Recordings
from tests.execution.running import relative

CLOSE = 2e-5

# Noise from a Brownian tree, which is not rebuilt here; their moments are compared in test_noisy_samplers.py.
OTHER_NOISE = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")

FAST = {(name, "karras") for name in ("heun", "dpm_2", "lms", "dpmpp_2m", "uni_pc", "deis", "res_multistep")}
FAST |= {("euler", "ddim_uniform"), ("ipndm", "normal")}
SCHEDULERS = ("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta")
SAMPLED = [
    *(
        (sampler, scheduler)
        for sampler in ("euler", "dpmpp_2m", "ddim", "dpmpp_2m_sde")
        for scheduler in SCHEDULERS
    ),
    *(
        (sampler, scheduler)
        for sampler in sorted(SAMPLERS)
        if not sampler.endswith("_gpu") and sampler not in ("euler", "dpmpp_2m", "ddim", "dpmpp_2m_sde")
        for scheduler in ("normal", "karras")
    ),
]
MATCHED = [pair for pair in SAMPLED if pair[0] not in OTHER_NOISE]


def slow_but(fast: bool, *values: Any) -> Any:
    return pytest.param(*values, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("sampler", "scheduler"), [slow_but(pair in FAST, *pair) for pair in MATCHED])
def test_sampled_latents(recorded: Recordings, sampler: str, scheduler: str) -> None:
    got = recorded.sample(sampler_name=sampler, scheduler=scheduler)
    expected = recorded[f"sampler/{sampler}/{scheduler}"]
    assert relative(got, expected) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "scheduler"), [pair for pair in SAMPLED if pair[0] in OTHER_NOISE])
def test_latents_with_other_noise_have_the_same_size(
    recorded: Recordings, sampler: str, scheduler: str
) -> None:
    got = recorded.sample(sampler_name=sampler, scheduler=scheduler)
    expected = recorded[f"sampler/{sampler}/{scheduler}"]
    assert float(got.std() / expected.std()) == pytest.approx(1, abs=0.15)


def patched(recorded: Recordings, name: str, **inputs: Any) -> Tensor:
    return recorded.sample(model=recorded.run(name, model=recorded.model, **inputs))


def conditioned(recorded: Recordings, name: str, **how: Any) -> Tensor:
    """Sample under "a red cat" and "a blue dog", joined by a node of two inputs."""
    first, second = ("1", "2") if name == "ConditioningCombine" else ("to", "from")
    cat, dog = recorded.text("a red cat"), recorded.text("a blue dog")
    joined = {f"conditioning_{first}": cat, f"conditioning_{second}": dog, **how}
    return recorded.sample(positive=recorded.run(name, **joined))


def in_area(recorded: Recordings) -> Tensor:
    place = {"width": 32, "height": 64, "x": 32, "y": 0, "strength": 1.0}
    dog = recorded.run("ConditioningSetArea", conditioning=recorded.text("a blue dog"), **place)
    both = {"conditioning_1": recorded.text("a red cat"), "conditioning_2": dog}
    return recorded.sample(positive=recorded.run("ConditioningCombine", **both))


def skipped(recorded: Recordings) -> Tensor:
    """Only the positive text was encoded so."""
    clip = recorded.run("CLIPSetLastLayer", clip=recorded.clip, stop_at_clip_layer=-2)
    return recorded.sample(positive=recorded.run("CLIPTextEncode", clip=clip, text="a (red:1.3) cat"))


def empty(recorded: Recordings, **size: int) -> Any:
    return recorded.run("EmptyLatentImage", **{"width": 64, "height": 64, "batch_size": 1, **size})


def hires_fix(recorded: Recordings) -> Tensor:
    start = {"samples": recorded["sampler/euler/normal"], "upscale_method": "bislerp", "scale_by": 1.5}
    return recorded.sample(latent_image=recorded.run("LatentUpscaleBy", **start), seed=9, denoise=0.5)


def part_of_the_way(recorded: Recordings, start: int, end: int) -> Tensor:
    leave = {3: "enable", 6: "disable"}[end]
    part = {"start_at_step": start, "end_at_step": end, "return_with_leftover_noise": leave}
    noise = {"noise_seed": 7, "add_noise": "enable" if start == 0 else "disable"}
    latent = empty(recorded) if start == 0 else recorded["advanced/0-3"]
    texts = {"positive": recorded.text("a (red:1.3) cat"), "negative": recorded.text("blurry")}
    how = {"steps": 6, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "model": recorded.model}
    got: Tensor = recorded.run("KSamplerAdvanced", **part, **noise, **texts, **how, latent_image=latent)
    return got


def again(recorded: Recordings, denoise: float) -> Tensor:
    return recorded.sample(latent_image=recorded["sampler/euler/normal"], seed=9, denoise=denoise)


LATENTS: dict[str, Callable[[Recordings], Tensor]] = {
    "vary/prompt": lambda r: r.sample(positive=r.text("a blue dog")),
    "vary/cfg1": lambda r: r.sample(cfg=1.0),
    "vary/cfg9": lambda r: r.sample(cfg=9.0),
    "vary/seed": lambda r: r.sample(seed=8),
    "vary/clip_skip": skipped,
    "vary/steps20": lambda r: r.sample(steps=20),
    "vary/size96x64": lambda r: r.sample(latent_image=empty(r, width=96)),
    "vary/batch2": lambda r: r.sample(latent_image=empty(r, batch_size=2)),
    "vary/long_prompt": lambda r: r.sample(positive=r.text(r.texts["long"])),
    "second_pass/denoise0.3": lambda r: again(r, 0.3),
    "second_pass/denoise0.6": lambda r: again(r, 0.6),
    "hires_fix/bislerp1.5_denoise0.5": hires_fix,
    "patch/RescaleCFG": lambda r: patched(r, "RescaleCFG", multiplier=0.7),
    "patch/PerturbedAttentionGuidance": lambda r: patched(r, "PerturbedAttentionGuidance", scale=3.0),
    "patch/ModelSamplingDiscrete": lambda r: patched(
        r, "ModelSamplingDiscrete", sampling="v_prediction", zsnr=False
    ),
    "conditioning/ConditioningCombine": lambda r: conditioned(r, "ConditioningCombine"),
    "conditioning/ConditioningConcat": lambda r: conditioned(r, "ConditioningConcat"),
    "conditioning/ConditioningAverage": lambda r: conditioned(
        r, "ConditioningAverage", conditioning_to_strength=0.4
    ),
    "conditioning/ConditioningSetArea": in_area,
    "advanced/0-3": lambda r: part_of_the_way(r, 0, 3),
    "advanced/3-6": lambda r: part_of_the_way(r, 3, 6),
    "vae_encode": lambda r: r.run("VAEEncode", pixels=r.image("vae_decode"), vae=r.vae),
}
SLOW = {
    "vary/prompt", "vary/cfg9", "vary/seed", "vary/steps20", "vary/size96x64", "vary/batch2", "vary/long_prompt",
    "vary/clip_skip", "second_pass/denoise0.6", "hires_fix/bislerp1.5_denoise0.5", "patch/RescaleCFG",
    "conditioning/ConditioningCombine", "conditioning/ConditioningConcat", "conditioning/ConditioningAverage",
}  # fmt: skip


@pytest.mark.parametrize("name", [slow_but(name not in SLOW, name) for name in LATENTS])
def test_latents_of_one_change(recorded: Recordings, name: str) -> None:
    assert relative(LATENTS[name](recorded), recorded[name]) < CLOSE


def resized(recorded: Recordings, method: str) -> Tensor:
    how = {"samples": recorded["sampler/euler/normal"], "upscale_method": method, "scale_by": 1.5}
    got: Tensor = recorded.run("LatentUpscaleBy", **how)
    return got


def pictured(recorded: Recordings, name: str, **how: Any) -> Tensor:
    got: Tensor = recorded.run(name, image=recorded.image("image/input"), **how)
    return got.movedim(1, -1)


METHODS = ("nearest-exact", "bilinear", "area", "bicubic")
OPERATIONS: dict[str, Callable[[Recordings], Tensor]] = {
    **{f"latent_upscale/{m}": partial(resized, method=m) for m in (*METHODS, "bislerp")},
    **{
        f"image/ImageScaleBy1.7/{m}": partial(pictured, name="ImageScaleBy", upscale_method=m, scale_by=1.7)
        for m in (*METHODS, "lanczos")
    },
    "image/ImageScale32x16center": lambda r: pictured(
        r, "ImageScale", upscale_method="bilinear", width=32, height=16, crop="center"
    ),
    "image/ImageSharpen": lambda r: pictured(r, "ImageSharpen", sharpen_radius=1, sigma=1.0, alpha=1.0),
    "image/ImageBlur": lambda r: pictured(r, "ImageBlur", blur_radius=1, sigma=1.0),
    "image/ImageInvert": lambda r: pictured(r, "ImageInvert"),
    "vae_decode": lambda r: r.run("VAEDecode", samples=r["sampler/euler/normal"], vae=r.vae).movedim(1, -1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(recorded: Recordings, name: str) -> None:
    torch.testing.assert_close(OPERATIONS[name](recorded), recorded[name], rtol=1e-5, atol=1e-5)


def test_nothing_recorded_is_left_out(outputs: dict[str, Tensor]) -> None:
    compared = {f"sampler/{sampler}/{scheduler}" for sampler, scheduler in SAMPLED}
    assert compared | {*LATENTS} | {*OPERATIONS} | {"image/input"} == set(outputs)


def test_text_encodings(recorded: Recordings, parity: Path) -> None:
    skip = recorded.run("CLIPSetLastLayer", clip=recorded.clip, stop_at_clip_layer=-2)
    with torch.inference_mode():
        got = dict(zip(recorded.texts, recorded.clip.encode([*recorded.texts.values()]), strict=True))
        got["plain_clip_skip_2"] = skip.encode(["a red cat"])[0]
    with np.load(parity / "text_encodings.npz") as expected:
        assert set(got) == set(expected)
        for name, encoding in got.items():
            assert relative(encoding.states, torch.from_numpy(expected[name])[0]) < CLOSE, name
