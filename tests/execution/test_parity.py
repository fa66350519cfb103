"""Against what the real ComfyUI computed on the same weights; the last row of every graph is compared."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flowsmith.execution import ModelLibrary
from flowsmith.execution.samplers import SAMPLERS
from flowsmith.execution.schedules import SCHEDULERS
from tests.execution.running import RECORDED, Graph, evaluate, relative
from tests.tiny_world import tiny_graph

NOISY = ("euler_ancestral", "dpmpp_2m_sde")  # draw noise as they go


def graph(**changes: Any) -> Graph:
    return tiny_graph(**{**RECORDED, **changes})


def latent(library: ModelLibrary, nodes: Graph, last: str, order: Sequence[str]) -> Tensor:
    """Run nodes one by one in the given order; return the first output of the last one."""
    result: Tensor = evaluate(library, nodes, order)[last][0]
    return result


def test_text_encodings(library: ModelLibrary, parity: Path) -> None:
    texts = json.loads((parity / "texts.json").read_text())
    with torch.inference_mode():
        encodings = library.checkpoint("tiny.safetensors").text.encode(list(texts.values()))
    with np.load(parity / "text_encodings.npz") as recorded:
        for name, got in zip(texts, encodings, strict=True):
            assert relative(got.states, torch.from_numpy(recorded[name])[0]) < 1e-3, name


# What is recorded of the deterministic samplers and the schedulers that are executed here.
SAMPLED = [
    *((sampler, scheduler) for sampler in ("euler", "dpmpp_2m", "ddim") for scheduler in SCHEDULERS),
    *((sampler, scheduler) for sampler in ("heun", "uni_pc") for scheduler in ("normal", "karras")),
]


@pytest.mark.parametrize(("sampler", "scheduler"), SAMPLED)
def test_sampled_latents(
    library: ModelLibrary, outputs: dict[str, Tensor], sampler: str, scheduler: str
) -> None:
    got = latent(library, graph(sampler_name=sampler, scheduler=scheduler), "5", "12345")
    assert relative(got, outputs[f"sampler/{sampler}/{scheduler}"]) < 2e-5


def test_all_recorded_combinations_are_compared(outputs: dict[str, Tensor]) -> None:
    names = [name.split("/")[1:] for name in outputs if name.startswith("sampler/")]
    known = {(sampler, scheduler) for sampler, scheduler in names if scheduler in SCHEDULERS}
    assert {pair for pair in known if pair[0] in SAMPLERS and pair[0] not in NOISY} == set(SAMPLED)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_latents_with_other_noise_have_the_same_size(
    library: ModelLibrary, outputs: dict[str, Tensor], scheduler: str
) -> None:
    expected = outputs[f"sampler/dpmpp_2m_sde/{scheduler}"]
    got = latent(library, graph(sampler_name="dpmpp_2m_sde", scheduler=scheduler), "5", "12345")
    assert float(got.std() / expected.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_ancestral_latents_of_a_cpu_server(library: ModelLibrary, outputs: dict[str, Tensor]) -> None:
    got = latent(library, graph(sampler_name="euler_ancestral", scheduler="karras"), "5", "12345")
    assert relative(got, outputs["sampler/euler_ancestral/karras"]) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cfg1", "size96x64", "batch2"])
def test_variants(library: ModelLibrary, outputs: dict[str, Tensor], name: str) -> None:
    changes: dict[str, Graph] = {"cfg1": {"cfg": 1.0}, "size96x64": {"width": 96}, "batch2": {}}
    nodes = graph(**changes[name])
    nodes["4"]["inputs"]["batch_size"] = 2 if name == "batch2" else 1
    assert relative(latent(library, nodes, "5", "12345"), outputs[f"vary/{name}"]) < 1e-3


@pytest.mark.slow
def test_long_prompt(library: ModelLibrary, outputs: dict[str, Tensor], parity: Path) -> None:
    nodes = graph(positive=json.loads((parity / "texts.json").read_text())["long"])
    assert relative(latent(library, nodes, "5", "12345"), outputs["vary/long_prompt"]) < 1e-3


def test_hires_fix_and_decoding(library: ModelLibrary, outputs: dict[str, Tensor]) -> None:
    nodes = graph()
    nodes["up"] = {
        "class_type": "LatentUpscaleBy",
        "inputs": {"samples": ["5", 0], "upscale_method": "bislerp", "scale_by": 1.5},
    }
    second = {**nodes["5"]["inputs"], "seed": 9, "denoise": 0.5, "latent_image": ["up", 0]}
    nodes["second"] = {"class_type": "KSampler", "inputs": second}
    got = latent(library, nodes, "second", ["1", "2", "3", "4", "5", "up", "second"])
    assert relative(got, outputs["hires_fix/bislerp1.5_denoise0.5"]) < 1e-3
    decoded = latent(library, nodes, "6", "123456").movedim(1, -1)
    assert relative(decoded, outputs["vae_decode"]) < 1e-3
