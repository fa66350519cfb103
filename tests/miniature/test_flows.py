"""The hand-written flows lie in the domain, cost little, and show every kind of component by itself."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest
import yaml

from flowsmith.evaluation.component_kinds import KINDS
from flowsmith.evaluation.one_component import Pair, one_component_pairs
from flowsmith.flows import Codec, Domain, Flow, Link, Schema, augment, load_corpus
from flowsmith.flows.sizes import flow_sizes

ROOT = Path(__file__).parents[2]
MINIATURE = ROOT / "miniature"
CODEC = Codec(Schema.core(), Domain.from_yaml(MINIATURE / "domain.yaml"))


def cost(flow: Flow) -> float:
    """Return pixels x steps, in those of the default flow: 64 x 64 in 20 steps; Heun looks twice in each."""
    sizes = flow_sizes(flow.nodes, CODEC.domain)
    looks = [2 if node.get("sampler_name") == "heun" else 1 for node in flow.nodes]
    return sum(n * size.pixel_steps for n, size in zip(looks, sizes, strict=True)) / (64 * 64 * 20)


@pytest.fixture(scope="module")
def base() -> dict[str, Flow]:
    return load_corpus(MINIATURE / "flows", CODEC.schema)


@pytest.fixture(scope="module")
def dense() -> dict[str, Flow]:
    return load_corpus(MINIATURE / "dense", CODEC.schema)


@pytest.fixture(scope="module")
def pairs(dense: dict[str, Flow]) -> dict[str, list[Pair]]:
    return one_component_pairs(dense, CODEC.schema)


def test_all_lie_in_the_domain(base: dict[str, Flow], dense: dict[str, Flow]) -> None:
    assert len(base) >= 30
    assert len(dense) == 50
    for name, flow in [*base.items(), *dense.items()]:
        CODEC.domain.check(flow, CODEC.schema, name)


def test_the_default_is_what_other_flows_are_compared_with(base: dict[str, Flow]) -> None:
    assert cost(base["default"]) == 1
    assert Counter(node.class_type for node in base["default"].nodes) == {
        "CheckpointLoaderSimple": 1, "CLIPTextEncode": 2, "EmptyLatentImage": 1, "KSampler": 1, "VAEDecode": 1,
        "SaveImage": 1,
    }  # fmt: skip


def test_rendering_costs_little(base: dict[str, Flow], dense: dict[str, Flow]) -> None:
    for flows, most in ((base, 1.6), (dense, 1.0)):
        costs = [cost(flow) for flow in flows.values()]
        assert sum(costs) / len(costs) <= most
        assert max(costs) <= 2
    # 1.5 times wider after 20 steps: 8 more steps over 2.25 times as many pixels.
    assert cost(base["hires_fix"]) == 1 + 2.25 * 8 / 20


def test_base_flows_meet_every_class_file_and_way_of_sampling(base: dict[str, Flow]) -> None:
    nodes = [node for flow in base.values() for node in flow.nodes]
    assert {node.class_type for node in nodes} == set(CODEC.domain.classes)
    met = {(name, value) for node in nodes for name, value in node.inputs if not isinstance(value, Link)}
    everything = (
        "CheckpointLoaderSimple.ckpt_name", "LoraLoader.lora_name", "KSampler.sampler_name", "KSampler.scheduler",
        "ImageSharpen.alpha", "LatentUpscaleBy.upscale_method", "ImageScaleBy.scale_by", "EmptyLatentImage.width",
    )  # fmt: skip
    for target in everything:
        for value in CODEC.domain.values[target]:
            assert (target.partition(".")[2], value) in met, (target, value)


def test_what_a_policy_learns_from_fits_its_budget(base: dict[str, Flow], dense: dict[str, Flow]) -> None:
    config = yaml.safe_load((ROOT / "configs" / "vocabulary.yaml").read_text())
    budget = config["model"]["init_args"]["budget"]
    variants = augment(base, CODEC.domain, Schema.core(), Random(0), 400)
    for flow in [*dense.values(), *(flow for _, flow in variants)]:
        assert len(CODEC.encode(flow)) <= 0.75 * budget


@pytest.mark.parametrize("kind", KINDS)
def test_some_dense_flows_differ_in_one_component_alone(kind: str, pairs: dict[str, list[Pair]]) -> None:
    assert pairs[kind]


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("checkpoint", "base_sharp", "crowd_sharp"),
        ("lora", "base_vivid", "poster_vivid"),
        ("second_vae", "pencil", "pencil_vivid"),
        ("sharpen", "striped", "striped_sharp"),
        ("upscale_model", "base_sharp", "base_fine_sharp"),
        ("second_pass", "base_vivid", "base_vivid_hires"),
        ("upscale_latent", "base_vivid_refined", "base_vivid_hires"),
        ("rescale_cfg", "base_guidance_8", "base_guidance_8_rescaled"),
    ],
)
def test_names_say_what_differs(kind: str, before: str, after: str, pairs: dict[str, list[Pair]]) -> None:
    assert {before, after} in [{pair.before, pair.after} for pair in pairs[kind]]


def test_what_people_like_can_be_had_with_every_model(dense: dict[str, Flow]) -> None:
    """Sharpening or colour, with or without fine detail: what is liked depends on the prompt."""
    for model in ("base", "pencil", "crowd", "poster", "striped"):
        for treatment, classes in {
            "": set[str](),
            "_sharp": {"ImageSharpen"},
            "_vivid": {"VAELoader"},
            "_fine_sharp": {"ImageSharpen", "ImageUpscaleWithModel"},
            "_fine_vivid": {"VAELoader", "ImageUpscaleWithModel"},
        }.items():
            there = {node.class_type for node in dense[model + treatment].nodes}
            assert there & {"ImageSharpen", "ImageUpscaleWithModel", "VAELoader"} == classes
