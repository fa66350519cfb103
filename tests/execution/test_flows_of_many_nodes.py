"""Whole flows over the newer nodes, through the executor: beside others as alone, and with the seeds they are given."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from flowsmith.execution import Executor, RenderTask
from flowsmith.flows import Flow, Schema
from tests.tiny_world import tiny_graph

SCHEMA = Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": ["tiny_a"]})
Graph = dict[str, Any]


def node(name: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": name, "inputs": inputs}


def graph(**nodes: dict[str, Any]) -> Graph:
    """The default flow in three steps, with more nodes; random networks hear texts only under much guidance."""
    return {**tiny_graph(positive="{prompt}", steps=3, cfg=40.0), **nodes}


def taken_apart(cfg: float = 40.0) -> Graph:
    """The same flow out of SamplerCustomAdvanced and its parts."""
    whole = graph()
    how = whole.pop("5")["inputs"]
    links = {name: how[name] for name in ("model", "positive", "negative")}
    return {
        **whole,
        "n": node("RandomNoise", noise_seed=0),
        "g": node("CFGGuider", cfg=cfg, **links),
        "s": node("KSamplerSelect", sampler_name="euler"),
        "t": node("BasicScheduler", model=["1", 0], scheduler="normal", steps=3, denoise=1.0),
        "5": node(
            "SamplerCustomAdvanced",
            noise=["n", 0], guider=["g", 0], sampler=["s", 0], sigmas=["t", 0], latent_image=["4", 0],
        ),
    }  # fmt: skip


def with_area(strength: float, start: float = 0.0) -> Graph:
    """A second text in the right half, for a part of the way."""
    made = graph(
        b=node("CLIPTextEncode", text="blue {prompt}", clip=["1", 1]),
        a=node(
            "ConditioningSetArea", conditioning=["b", 0], width=64, height=64, x=32, y=0, strength=strength
        ),
        t=node("ConditioningSetTimestepRange", conditioning=["a", 0], start=start, end=1.0),
        c=node("ConditioningCombine", conditioning_1=["2", 0], conditioning_2=["t", 0]),
    )
    made["5"]["inputs"]["positive"] = ["c", 0]
    return made


def patched(name: str, **inputs: Any) -> Graph:
    made = graph(p=node(name, model=["1", 0], **inputs))
    made["5"]["inputs"]["model"] = ["p", 0]
    return made


def said(name: str, **inputs: Any) -> Graph:
    made = graph(b=node("CLIPTextEncode", text="a star", clip=["1", 1]), j=node(name, **inputs))
    made["5"]["inputs"]["positive"] = ["j", 0]
    return made


def worked_on(*steps: tuple[str, str, Any]) -> Graph:
    """Further nodes between the picture and its keeping: (class, name of its image input, other inputs)."""
    made, before = graph(), "6"
    for place, (name, image, inputs) in enumerate(steps):
        made[f"w{place}"] = node(name, **{image: [before, 0]}, **inputs)
        before = f"w{place}"
    made["7"]["inputs"]["images"] = [before, 0]
    return made


GRAPHS: dict[str, Graph] = {
    "plain": graph(),
    "taken apart": taken_apart(),
    "weakly taken apart": taken_apart(20.0),
    "area": with_area(1.0),
    "strong area": with_area(4.0),
    "late area": with_area(1.0, 0.3),
    "attention": patched("PerturbedAttentionGuidance", scale=3.0),
    "freeu": patched("FreeU", b1=1.3, b2=1.4, s1=0.9, s2=0.2),
    "v": patched("ModelSamplingDiscrete", sampling="v_prediction", zsnr=False),
    "concat": said("ConditioningConcat", conditioning_to=["2", 0], conditioning_from=["b", 0]),
    "average": said(
        "ConditioningAverage",
        conditioning_to=["2", 0], conditioning_from=["b", 0], conditioning_to_strength=0.4,
    ),
    "zero": said("ConditioningZeroOut", conditioning=["2", 0]),
    "worked on": worked_on(
        ("ImageScale", "image", {"upscale_method": "bicubic", "width": 32, "height": 0, "crop": "disabled"}),
        ("ImageBlur", "image", {"blur_radius": 1, "sigma": 1.0}),
        ("ImageInvert", "image", {}),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def images(models: Path) -> dict[str, Tensor]:
    """Every flow for two prompts and seeds, all rendered together."""
    executor = Executor(models, SCHEMA, batch_size=8)
    return rendered(executor, [*GRAPHS])


def rendered(executor: Executor, names: list[str]) -> dict[str, Tensor]:
    flows = {name: Flow.from_template(GRAPHS[name], SCHEMA) for name in names}
    prompts = {5: "two red stars", 6: "a red star beside a star of stars"}
    tasks = [
        RenderTask(f"{n}/{seed}", flow, text, seed)
        for n, flow in flows.items()
        for seed, text in prompts.items()
    ]
    images = {}
    for result in executor.render(tasks):
        assert result.error is None, result
        assert result.image is not None
        images[result.sample_id] = result.image
    return images


def apart(one: Tensor, other: Tensor) -> Tensor:
    return (one.int() - other.int()).abs()


@pytest.mark.parametrize("name", GRAPHS)
def test_flows_beside_others_are_as_they_are_alone(
    models: Path, images: dict[str, Tensor], name: str
) -> None:
    for sample, alone in rendered(Executor(models, SCHEMA, batch_size=1), [name]).items():
        assert float((apart(alone, images[sample]) <= 1).float().mean()) >= 0.999


def test_a_flow_taken_apart_makes_the_same_picture_from_the_same_seed(images: dict[str, Tensor]) -> None:
    for seed in (5, 6):
        assert int(apart(images[f"taken apart/{seed}"], images[f"plain/{seed}"]).max()) <= 1


def test_flows_differ_where_they_say_so(images: dict[str, Tensor]) -> None:
    """But for the late area, which comes when little is left to change, and the one that was made to be the same."""
    others = {"taken apart", "late area", "worked on"}
    names = [name for name in images if name.split("/")[0] not in others]
    for k, name in enumerate(names):
        for other in names[:k]:
            assert int(apart(images[name], images[other]).max()) > 1, (name, other)


def test_an_area_changes_its_half_most(images: dict[str, Tensor]) -> None:
    for seed in (5, 6):
        change = apart(images[f"strong area/{seed}"], images[f"plain/{seed}"]).float()
        assert float(change[..., 36:].mean()) > 2 * float(change[..., :24].mean())
