"""Parts of a way: what they start from, where they stop, and that they make the whole again."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import Executor, ModelLibrary, RenderTask
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.nodes import find_node
from flowsmith.execution.nodes.sampling import part_of
from flowsmith.execution.nodes.values import EmptyLatent
from flowsmith.execution.samplers import SAMPLERS
from flowsmith.execution.schedules import sampling_sigmas
from flowsmith.flows import Flow, Schema
from tests.execution.gaussian import SPREAD
from tests.execution.perfect import perfect
from tests.execution.running import relative
from tests.tiny_world import tiny_graph


@pytest.fixture(scope="module")
def library(models: Path) -> ModelLibrary:
    return ModelLibrary(models)


def row(library: ModelLibrary, latent: Tensor | EmptyLatent, **changes: Any) -> dict[str, Any]:
    """Return inputs for either sampling node: 6 steps at guidance 3 from seed 7."""
    checkpoint = library.checkpoint("tiny_a")
    assert checkpoint.text is not None
    with torch.inference_mode():
        positive, negative = map(Conditioning.of, checkpoint.text.encode(["red", ""]))
    texts = {"positive": positive, "negative": negative}
    how = {"steps": 6, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    part = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 10000}
    part |= {"return_with_leftover_noise": "disable"}
    seeds = {"seed": 7, "noise_seed": 7}
    return {"model": checkpoint.model, "latent_image": latent, **texts, **how, **part, **seeds, **changes}


def sample(library: ModelLibrary, *rows: dict[str, Any], name: str = "KSamplerAdvanced") -> list[Tensor]:
    with torch.inference_mode():
        return [latents for (latents,) in find_node(name).run(rows, library)]


EMPTY = EmptyLatent(48, 64)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim"])
@pytest.mark.parametrize("scheduler", ["normal", "karras", "simple"])
def test_two_parts_are_the_whole(library: ModelLibrary, sampler: str, scheduler: str) -> None:
    """For solvers that remember nothing from one step to the next."""
    how = {"sampler_name": sampler, "scheduler": scheduler, "model": perfect(library)}
    (whole,) = sample(library, row(library, EMPTY, **how), name="KSampler")
    (advanced,) = sample(library, row(library, EMPTY, **how))
    assert torch.equal(whole, advanced)
    stop: dict[str, Any] = {"end_at_step": 2, "return_with_leftover_noise": "enable"}
    (first,) = sample(library, row(library, EMPTY, **how, **stop))
    go_on: dict[str, Any] = {"add_noise": "disable", "start_at_step": 2, "noise_seed": 99}
    (last,) = sample(library, row(library, first, **how, **go_on))
    assert relative(last, whole) < 1e-5
    assert relative(first, whole) > 0.1


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_stops_with_noise_and_goes_on(library: ModelLibrary, sampler: str) -> None:
    model = perfect(library)
    how: dict[str, Any] = {"sampler_name": sampler, "scheduler": "karras", "steps": 12, "model": model}
    discard = SAMPLERS[sampler].discards_penultimate
    sigma = sampling_sigmas(model.table, "karras", 12, discard_penultimate=discard)[5]
    stop: dict[str, Any] = {"end_at_step": 5, "return_with_leftover_noise": "enable"}
    (first,) = sample(library, row(library, EMPTY, **how, **stop))
    go_on: dict[str, Any] = {"add_noise": "disable", "start_at_step": 5, "noise_seed": 8}  # as in a flow
    (last,) = sample(library, row(library, first, **how, **go_on))
    (whole,) = sample(library, row(library, EMPTY, **how), name="KSampler")
    spreads = [float(model.latent.into_model(latents).std()) for latents in (first, last, whole)]
    assert sigma > 1
    assert spreads[0] == pytest.approx(math.sqrt(sigma**2 + SPREAD**2), rel=0.2)
    assert spreads[1] == pytest.approx(SPREAD, rel=0.4)  # few steps: the whole way is as far from it
    assert spreads[1] == pytest.approx(spreads[2], rel=0.15)


def test_a_later_start_adds_the_noise_of_its_step(library: ModelLibrary) -> None:
    model = library.checkpoint("tiny_a").model
    sigmas = sampling_sigmas(model.table, "normal", 6)
    latent = torch.randn(1, 4, 16, 12, generator=torch.Generator().manual_seed(0))
    (got,) = sample(library, row(library, latent, start_at_step=4))
    noise = torch.randn(1, 4, 16, 12, generator=torch.Generator().manual_seed(7))
    noised = model.latent.out_of_model(model.latent.into_model(latent) + noise * sigmas[4])
    (expected,) = sample(library, row(library, noised, start_at_step=4, add_noise="disable"))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    # KSampler calls the same part of this schedule denoise 2 / 6.
    steps: dict[str, Any] = {"steps": 2, "denoise": 2 / 6}
    (same,) = sample(library, row(library, latent, **steps), name="KSampler")
    torch.testing.assert_close(got, same)


def test_parts_by_hand() -> None:
    sigmas = (14.0, 6.0, 3.0, 1.0, 0.0)
    assert part_of(sigmas, 0, 10000, False) == sigmas
    assert part_of(sigmas, 0, 4, True) == sigmas
    assert part_of(sigmas, 0, 2, True) == (14.0, 6.0, 3.0)
    assert part_of(sigmas, 1, 3, True) == (6.0, 3.0, 1.0)
    assert part_of(sigmas, 1, 3, False) == (6.0, 3.0, 0.0)
    for start, end in ((4, 10000), (2, 2), (3, 1), (0, 0), (7, 9)):
        assert part_of(sigmas, start, end, True) == part_of(sigmas, start, end, False) == ()


def test_no_step_leaves_the_latents_as_they_are(library: ModelLibrary) -> None:
    latent = torch.randn(1, 4, 16, 12, generator=torch.Generator().manual_seed(0))
    for part in ({"start_at_step": 6}, {"start_at_step": 3, "end_at_step": 3}):
        assert torch.equal(sample(library, row(library, latent, **part))[0], latent)
    assert not sample(library, row(library, EMPTY, start_at_step=6))[0].any()


def test_rows_share_a_batch_whatever_their_part_and_come_out_as_alone(library: ModelLibrary) -> None:
    node = find_node("KSamplerAdvanced")
    rows = [row(library, EMPTY, noise_seed=seed, cfg=2.0 + seed, end_at_step=3) for seed in (1, 2, 3)]
    unlike: list[dict[str, Any]] = [
        {"start_at_step": 1}, {"end_at_step": 4}, {"add_noise": "disable"}, {"steps": 7}, {"cfg": 1.0},
        {"return_with_leftover_noise": "enable"}, {"scheduler": "karras"}, {"sampler_name": "heun"},
    ]  # fmt: skip
    rows += [{**rows[0], **change} for change in unlike]
    assert len({node.group(one) for one in rows}) == 1
    alone = [sample(library, one)[0] for one in rows]
    for latents, expected in zip(sample(library, *rows), alone, strict=True):
        assert relative(latents, expected) < 1e-5
    assert min(relative(latents, alone[0]) for latents in alone[1:]) > 1e-3  # so each change does something


def test_rows_of_other_networks_and_sizes_do_not_share_a_batch(library: ModelLibrary) -> None:
    node, plain = find_node("KSamplerAdvanced"), row(library, EMPTY)
    patched = library.checkpoint("tiny_a").model.patched(rescale=0.5)
    unlike = [plain, {**plain, "model": patched}, {**plain, "latent_image": EmptyLatent(48, 48)}]
    assert len({node.group(one) for one in unlike}) == 3


def test_a_flow_in_two_parts_is_the_flow_in_one(models: Path) -> None:
    """The first part has the task's seed, as the KSampler in its place would have."""
    schema = Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": ["tiny_a"]})
    plain = tiny_graph(positive="{prompt}", steps=5)
    graph = tiny_graph(positive="{prompt}", steps=5)
    shared = {k: v for k, v in graph["5"]["inputs"].items() if k not in ("seed", "denoise")}
    first = {"add_noise": "enable", "noise_seed": 0, "start_at_step": 0, "end_at_step": 2}
    last = {"add_noise": "disable", "noise_seed": 0, "start_at_step": 2, "end_at_step": 10000}
    last["latent_image"] = ["8", 0]
    for name, part, leave in (("8", first, "enable"), ("5", last, "disable")):
        inputs = {**shared, **part, "return_with_leftover_noise": leave}
        graph[name] = {"class_type": "KSamplerAdvanced", "inputs": inputs}
    flows = [Flow.from_template(one, schema) for one in (plain, graph)]
    tasks = [RenderTask(f"{k}/{seed}", flow, "red", seed) for k, flow in enumerate(flows) for seed in (3, 4)]
    images = {r.sample_id: r.image for r in Executor(models, schema).render(tasks)}
    for seed in (3, 4):
        one, two = images[f"0/{seed}"], images[f"1/{seed}"]
        assert one is not None
        assert two is not None
        assert int((one.int() - two.int()).abs().max()) <= 1
