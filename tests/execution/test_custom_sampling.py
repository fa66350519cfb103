"""Sampling taken apart is the sampling of one node, and goes on where it stopped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ModelLibrary
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.nodes import find_node
from flowsmith.execution.nodes.values import EmptyLatent
from tests.execution.perfect import perfect
from tests.execution.running import relative, run

Row = dict[str, Any]


@pytest.fixture(scope="module")
def library(models: Path) -> ModelLibrary:
    return ModelLibrary(models)


@pytest.fixture(scope="module")
def texts(library: ModelLibrary) -> Row:
    clip = library.checkpoint("tiny_a").text
    assert clip is not None
    with torch.inference_mode():
        positive, negative = map(Conditioning.of, clip.encode(["red", ""]))
    return {"positive": positive, "negative": negative}


def whole(library: ModelLibrary, texts: Row, **changes: Any) -> Tensor:
    how = {
        "steps": 5,
        "cfg": 3.0,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "denoise": 1.0,
        "seed": 7,
    }
    model = library.checkpoint("tiny_a").model
    row = {"model": model, "latent_image": EmptyLatent(48, 64), **texts, **how, **changes}
    latents: Tensor = run(library, "KSampler", **row)
    return latents


def parts(library: ModelLibrary, sampler: str = "dpmpp_2m", **schedule: Any) -> Row:
    model = library.checkpoint("tiny_a").model
    how = {"scheduler": "karras", "steps": 5, "denoise": 1.0, **schedule}
    return {
        "sampler": run(library, "KSamplerSelect", sampler_name=sampler),
        "sigmas": run(library, "BasicScheduler", model=model, **how),
    }


def both(library: ModelLibrary, name: str, *rows: Row) -> list[tuple[Tensor, Tensor]]:
    with torch.inference_mode():
        return find_node(name).run(rows, library)


@pytest.mark.parametrize("denoise", [1.0, 0.5])
def test_in_one_node_and_in_many_it_is_the_same(library: ModelLibrary, texts: Row, denoise: float) -> None:
    model, seed = library.checkpoint("tiny_a").model, {"noise_seed": 7}
    latent: Any = EmptyLatent(48, 64)
    if denoise < 1:
        latent = torch.randn(1, 4, 16, 12, generator=torch.Generator().manual_seed(0))
    expected = whole(library, texts, denoise=denoise, latent_image=latent)
    some = {**parts(library, denoise=denoise), "latent_image": latent}
    custom = {"model": model, "add_noise": True, "cfg": 3.0, **seed, **texts, **some}
    ((one, _),) = both(library, "SamplerCustom", custom)
    noise, guider = (
        run(library, "RandomNoise", **seed),
        run(library, "CFGGuider", model=model, cfg=3.0, **texts),
    )
    ((many, _),) = both(library, "SamplerCustomAdvanced", {"noise": noise, "guider": guider, **some})
    assert torch.equal(one, expected)
    assert torch.equal(many, expected)


def test_one_conditioning_is_guidance_of_one(library: ModelLibrary, texts: Row) -> None:
    model = library.checkpoint("tiny_a").model
    guider = run(library, "BasicGuider", model=model, conditioning=texts["positive"])
    row = {"noise": run(library, "RandomNoise", noise_seed=7), "guider": guider, **parts(library)}
    ((got, _),) = both(library, "SamplerCustomAdvanced", {**row, "latent_image": EmptyLatent(48, 64)})
    assert torch.equal(got, whole(library, texts, cfg=1.0))


def test_split_levels_make_the_whole_way_again(library: ModelLibrary, texts: Row) -> None:
    """For a solver that remembers nothing. At the end of a part noise is left, beside a guess without any."""
    some = parts(library, "heun")
    with torch.inference_mode():
        ((high, low),) = find_node("SplitSigmas").run([{"sigmas": some["sigmas"], "step": 2}], library)
    assert (len(high), len(low), high[-1]) == (3, 4, low[0])
    guider = run(library, "CFGGuider", model=perfect(library), cfg=3.0, **texts)
    first = {"noise": run(library, "RandomNoise", noise_seed=7), "guider": guider, "sampler": some["sampler"]}
    ((left, guess),) = both(
        library, "SamplerCustomAdvanced", {**first, "sigmas": high, "latent_image": EmptyLatent(48, 64)}
    )
    last = {**first, "noise": run(library, "DisableNoise"), "sigmas": low, "latent_image": left}
    ((end, clean),) = both(library, "SamplerCustomAdvanced", last)
    expected = whole(library, texts, sampler_name="heun", model=perfect(library))
    assert relative(end, expected) < 1e-5
    assert torch.equal(end, clean)  # the last step ends at its guess
    assert float(guess.std()) < float(left.std()) / 2


def test_the_guess_beside_the_latents_is_that_of_the_last_step(library: ModelLibrary, texts: Row) -> None:
    """A step of Euler's is the blend D + (target / sigma) (x - D), from which D can be told."""
    model, (top, mid) = perfect(library), (5.0, 2.0)
    sampler = run(library, "KSamplerSelect", sampler_name="euler")
    row = {"model": model, "noise_seed": 3, "cfg": 1.0, **texts, "sampler": sampler, "sigmas": (top, mid)}
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    ((end, guess),) = both(library, "SamplerCustom", {**row, "add_noise": False, "latent_image": start})
    told = (end - start * (mid / top)) / (1 - mid / top)
    torch.testing.assert_close(guess, told, rtol=1e-4, atol=1e-4)


def test_rows_share_a_batch_whatever_their_way_and_come_out_as_alone(
    library: ModelLibrary, texts: Row
) -> None:
    model, node = library.checkpoint("tiny_a").model, find_node("SamplerCustomAdvanced")

    def row(seed: int, cfg: float, steps: int = 5, sampler: str = "dpmpp_2m") -> Row:
        guider = run(library, "CFGGuider", model=model, cfg=cfg, **texts)
        noise = run(library, "RandomNoise", noise_seed=seed)
        way = parts(library, sampler, steps=steps)
        return {"noise": noise, "guider": guider, "latent_image": EmptyLatent(48, 64), **way}

    rows = [row(1, 2.0), row(2, 4.0), row(1, 1.0), row(1, 2.0, steps=4), row(1, 2.0, sampler="euler")]
    rows.append({**rows[0], "noise": run(library, "DisableNoise")})
    assert len({node.group(one) for one in rows}) == 1
    together = both(library, "SamplerCustomAdvanced", *rows)
    alone = [both(library, "SamplerCustomAdvanced", one)[0][0] for one in rows]
    for (latents, _), expected in zip(together, alone, strict=True):
        assert relative(latents, expected) < 1e-5
    assert min(relative(latents, alone[0]) for latents in alone[1:]) > 1e-3  # so each change does something


def levels(library: ModelLibrary, name: str, **inputs: Any) -> list[float]:
    return list(run(library, name, **inputs))


def test_schedules_of_their_own(library: ModelLibrary) -> None:
    limits = {"sigma_max": 14.614642, "sigma_min": 0.0291675}
    model = library.checkpoint("tiny_a").model
    for name, scheduler, how in (
        ("KarrasScheduler", "karras", {**limits, "rho": 7.0}),
        ("ExponentialScheduler", "exponential", limits),
        ("BetaSamplingScheduler", "beta", {"model": model, "alpha": 0.6, "beta": 0.6}),
    ):
        same = levels(library, "BasicScheduler", model=model, scheduler=scheduler, steps=6, denoise=1.0)
        assert levels(library, name, steps=6, **how) == pytest.approx(same, rel=2e-5)
    straight = levels(library, "KarrasScheduler", steps=3, sigma_max=9.0, sigma_min=1.0, rho=1.0)
    assert straight == pytest.approx([9.0, 5.0, 1.0, 0.0])


def test_turbo_takes_its_own_timesteps(library: ModelLibrary) -> None:
    model = library.checkpoint("tiny_a").model
    sigmas = model.table.sigmas
    got = levels(library, "SDTurboScheduler", model=model, steps=2, denoise=1.0)
    assert got == pytest.approx([float(sigmas[999]), float(sigmas[899]), 0.0])
    late = levels(library, "SDTurboScheduler", model=model, steps=4, denoise=0.3)
    assert late == pytest.approx([float(sigmas[299]), float(sigmas[199]), float(sigmas[99]), 0.0])


@pytest.mark.parametrize(
    ("family", "listed"), [("SD1", "StableDiffusionSigmas"), ("SDXL", "StableDiffusionXLSigmas")]
)
def test_aligned_steps_are_their_authors(library: ModelLibrary, family: str, listed: str) -> None:
    from diffusers.schedulers import AysSchedules

    published = [float(sigma) for sigma in AysSchedules[listed]]
    got = levels(library, "AlignYourStepsScheduler", model_type=family, steps=10, denoise=1.0)
    # Published with three decimals, and of a table that ends elsewhere in its fourth.
    assert got == pytest.approx([*published[:10], 0.0], rel=1e-3, abs=2e-3)
    more = levels(library, "AlignYourStepsScheduler", model_type=family, steps=20, denoise=1.0)
    assert more[:-1:2] == pytest.approx(got[:-1])
    assert more[1] ** 2 == pytest.approx(got[0] * got[1], rel=1e-6)
    late = levels(library, "AlignYourStepsScheduler", model_type=family, steps=10, denoise=0.3)
    assert late == got[-4:]


def test_levels_split_by_what_is_left(library: ModelLibrary) -> None:
    sigmas = (9.0, 5.0, 3.0, 1.0, 0.0)
    with torch.inference_mode():
        ((high, low),) = find_node("SplitSigmasDenoise").run([{"sigmas": sigmas, "denoise": 0.5}], library)
    assert (high, low) == ((9.0, 5.0, 3.0), (3.0, 1.0, 0.0))
