"""The promises of grammar and codec over all classes, and sizes that depend on an upscale model's file."""

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from flowsmith.flows import (
    Codec,
    Domain,
    DomainError,
    Flow,
    Grammar,
    Link,
    Node,
    Schema,
    Value,
    random_flow,
    validate,
)
from flowsmith.flows.sizes import flow_sizes
from tests.flows.exhaust import all_allowed
from tests.flows.wide_domain import wide_content, wide_domain


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(Schema.core(), wide_domain())


def walk(grammar: Grammar, rng: Random) -> Flow:
    """Write a random flow and assert all that the grammar promises about it."""
    codec = grammar.codec
    tokens = grammar.random_walk(rng)
    assert len(tokens) <= grammar.budget
    flow = codec.decode(tokens)
    assert validate(flow, codec.schema) == []
    assert codec.domain.issues(flow, codec.schema) == []
    return flow


def test_walks_are_valid_and_hold_no_dead_or_double_node(codec: Codec) -> None:
    grammar, rng = Grammar(codec, 110), Random(1)
    met = Counter[str]()
    for _ in range(2000):
        tokens = grammar.random_walk(rng)
        flow = codec.decode(tokens)
        assert validate(flow, codec.schema) == []
        assert codec.domain.issues(flow, codec.schema) == []
        assert codec.encode(flow) == tokens
        met.update({node.class_type for node in flow.nodes})
    assert set(met) == set(codec.domain.classes)
    assert min(met.values()) > 500


@pytest.mark.slow  # the same of the small domain is always run
def test_flows_made_by_hand_come_back_and_can_be_walked_to_within_their_own_length(codec: Codec) -> None:
    rng, grammars, met = Random(2), dict[int, Grammar](), set[str]()
    for _ in range(1000):
        flow = random_flow(codec.domain, codec.schema, rng)
        tokens = codec.encode(flow)
        assert codec.decode(tokens) == flow
        grammar = grammars.setdefault(len(tokens), Grammar(codec, len(tokens)))
        states = grammar.replay(tokens)
        assert grammar.advance(states[-1], tokens[-1]).done
        met |= {node.class_type for node in flow.nodes}
    assert met == set(codec.domain.classes)


def pressed() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield changes of the domain that press on one promise each."""
    content = wide_content()
    classes, values = content["classes"], content["values"]
    yield "no pixels to spare for the larger upscaler", {"max_pixels": 48 * 48 * 4}
    yield "no pixels to spare", {"max_pixels": 48 * 48}
    yield "pixels for the larger one only once", {"max_pixels": 48 * 48 * 9 * 4}
    yield "steps over upscaled pixels", {"max_pixel_steps": 48 * 48 * (4 + 4 * 4)}
    yield "one upscaler", {"classes": {**classes, "UpscaleModelLoader": 1}}
    several = {name: 3 * most for name, most in classes.items()}
    yield "several outputs", {"classes": {**several, "CheckpointLoaderSimple": 1}}
    yield "noise allowed", {"sample_empty_latents": False}
    shrinking = {**values, "ImageScaleBy.scale_by": [0.25, 0.5], "LatentUpscaleBy.scale_by": [0.5, 2.0]}
    yield "shrinking", {"values": shrinking, "max_pixels": 48 * 48 * 5, "classes": several}


@pytest.mark.parametrize("budget", [40, 110])
def test_bounds_never_lead_into_a_dead_end(budget: int) -> None:
    for number, (_, changes) in enumerate(pressed()):
        grammar, rng = Grammar(Codec(Schema.core(), wide_domain(**changes)), budget), Random(number)
        for _ in range(100):
            flow = walk(grammar, rng)
            assert grammar.codec.decode(grammar.codec.encode(flow)) == flow


def small() -> Domain:
    """Return a domain whose flows can be listed: one picture, then upscaling, sharpening and refining."""
    content = wide_content()
    content["classes"] = {
        "SaveImage": 1, "VAEDecode": 2, "VAEEncode": 1, "ImageSharpen": 1, "ImageUpscaleWithModel": 2,
        "UpscaleModelLoader": 2, "KSampler": 2, "EmptyLatentImage": 1, "CheckpointLoaderSimple": 1,
        "CLIPTextEncode": 2,
    }  # fmt: skip
    content["values"] |= {
        "CheckpointLoaderSimple.ckpt_name": ["a"], "EmptyLatentImage.width": [48],
        "EmptyLatentImage.height": [48], "KSampler.steps": [4], "KSampler.cfg": [4.0],
        "KSampler.sampler_name": ["euler"], "KSampler.scheduler": ["normal"], "KSampler.denoise": [0.6, 1.0],
        "ImageSharpen.sigma": [1.0], "ImageSharpen.alpha": [0.1],
    }  # fmt: skip
    content["values"] = {k: v for k, v in content["values"].items() if k.split(".")[0] in content["classes"]}
    content["texts"] = {"positive": ["{prompt}"], "negative": [""]}
    content |= {"max_pixels": 48 * 48 * 40, "max_pixel_steps": 48 * 48 * 4 * 9}
    return Domain.from_json(content)


def listed(codec: Codec) -> set[str]:
    """Name all flows of the small domain, by building every chain and asking the domain about it."""
    sampler = (("steps", 4), ("cfg", 4.0), ("sampler_name", "euler"), ("scheduler", "normal"))
    conditioned: tuple[tuple[str, Value | Link], ...]
    conditioned = (("model", Link(0, 0)), *sampler, ("positive", Link(1, 0)), ("negative", Link(2, 0)))
    start = [
        Node("CheckpointLoaderSimple", (("ckpt_name", "a"),)),
        Node("CLIPTextEncode", (("text", "{prompt}"), ("clip", Link(0, 1)))),
        Node("CLIPTextEncode", (("text", ""), ("clip", Link(0, 1)))),
        Node("EmptyLatentImage", (("width", 48), ("height", 48), ("batch_size", 1))),
        Node("UpscaleModelLoader", (("model_name", "x2.safetensors"),)),
        Node("UpscaleModelLoader", (("model_name", "x3.safetensors"),)),
    ]
    keys = set()
    # k, K: sample at denoise 0.6 or 1 · d: decode · e: encode · 2, 3: upscale · s: sharpen
    chains: list[tuple[str, list[Node]]] = [("", start)]
    while chains:
        chain, nodes = chains.pop()
        picture = chain[-1:] not in ("", "k", "K", "e")
        if picture:
            save = (("images", Link(len(nodes) - 1, 0)), ("filename_prefix", "flowsmith"))
            flow = Flow.from_nodes([*nodes, Node("SaveImage", save)], codec.schema)
            if not codec.domain.issues(flow, codec.schema):
                keys.add(flow.key)
        if len(chain) == 8:  # two of each of k, d and an upscaling, one of e and s
            continue
        link = Link(len(nodes) - 1 if chain else 3, 0)
        for op in "e23s" if picture else "kKd":
            if op in "kK":
                ends = (("latent_image", link), ("denoise", 0.6 if op == "k" else 1.0))
                new = Node("KSampler", (*conditioned, *ends))
            elif op in "23":
                inputs = (("upscale_model", Link(4 if op == "2" else 5, 0)), ("image", link))
                new = Node("ImageUpscaleWithModel", inputs)
            elif op == "s":
                how = (("sharpen_radius", 1), ("sigma", 1.0), ("alpha", 0.1))
                new = Node("ImageSharpen", (("image", link), *how))
            elif op == "d":
                new = Node("VAEDecode", (("samples", link), ("vae", Link(0, 2))))
            else:
                new = Node("VAEEncode", (("pixels", link), ("vae", Link(0, 2))))
            chains.append((chain + op, [*nodes, new]))
    return keys


def test_the_grammar_allows_exactly_the_flows_of_the_domain() -> None:
    codec = Codec(Schema.core(), small())
    found = all_allowed(codec, 60)
    assert len(found) == len(set(found))  # one flow, one way to write it
    assert set(found) == listed(codec)
    assert len(found) > 50


def test_sizes_follow_the_upscalers_file() -> None:
    graph: dict[str, Any] = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "x3.safetensors"}},
        "8": {
            "class_type": "ImageUpscaleWithModel",
            "inputs": {"upscale_model": ["7", 0], "image": ["6", 0]},
        },
        "9": {
            "class_type": "ImageSharpen",
            "inputs": {"image": ["8", 0], "sharpen_radius": 1, "sigma": 1.0, "alpha": 0.1},
        },
        "10": {"class_type": "VAEEncode", "inputs": {"pixels": ["9", 0], "vae": ["1", 2]}},
        "12": {"class_type": "VAEDecode", "inputs": {"samples": ["11", 0], "vae": ["1", 2]}},
        "13": {"class_type": "SaveImage", "inputs": {"images": ["12", 0], "filename_prefix": "flowsmith"}},
    }
    sampler = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "cfg": 4.0, "steps": 8}
    sampler |= {"sampler_name": "euler", "scheduler": "normal"}
    graph["5"] = {"class_type": "KSampler", "inputs": {**sampler, "latent_image": ["4", 0], "denoise": 1.0}}
    again = {**sampler, "latent_image": ["10", 0], "steps": 4, "denoise": 0.3}
    graph["11"] = {"class_type": "KSampler", "inputs": again}
    domain = wide_domain()
    schema = domain.restrict(Schema.core())
    flow = Flow.from_template(graph, schema)
    sizes = flow_sizes(flow.nodes, domain)
    assert {round(size.area) for size in sizes} == {0, 64 * 48, 9 * 64 * 48}
    assert sum(size.pixel_steps for size in sizes) == 64 * 48 * 8 + 9 * 64 * 48 * 4
    assert sizes[-1].sampled
    assert domain.issues(flow, schema) == []
    bounds: dict[str, Any] = {"max_pixels": 9 * 64 * 48 - 1, "max_pixel_steps": 64 * 48 * 44 - 1}
    narrow = wide_domain(**bounds).issues(flow, schema)
    assert [issue.type for issue in narrow] == ["too_many_pixels", "too_many_pixel_steps"]
    larger = wide_domain(upscale_factors={"x2.safetensors": 2, "x3.safetensors": 6})
    assert [issue.type for issue in larger.issues(flow, schema)] == ["too_many_pixels"]


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ({"x2.safetensors": 2}, r"'x3\.safetensors' has no factor; say under upscale_factors"),
        ({"x2.safetensors": 2, "x3.safetensors": 3, "y": 2}, "'y' is no upscale model here"),
        ({"x2.safetensors": 2, "x3.safetensors": 0}, r"upscale_factors\.x3\.safetensors=0; give a positive"),
        ({"x2.safetensors": "2", "x3.safetensors": 3}, "give a positive number"),
        (2, "upscale_factors=2; give a mapping"),
    ],
)
def test_every_upscale_model_has_a_factor(factors: Any, says: str) -> None:
    with pytest.raises(DomainError, match=says):
        wide_domain(upscale_factors=factors).restrict(Schema.core())


def test_a_domain_with_factors_survives_being_written_and_one_without_is_written_as_before() -> None:
    domain = wide_domain()
    assert Domain.from_json(domain.to_json()) == domain
    content = wide_content(upscale_factors={})
    assert "upscale_factors" not in Domain.from_json(content).to_json()
