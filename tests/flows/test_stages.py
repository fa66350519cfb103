"""Ways in two parts: what fits together, what is refused, and that the grammar writes all of it and nothing else."""

import itertools
import re
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from flowsmith.flows import (
    Codec,
    CodecError,
    Domain,
    DomainError,
    Flow,
    Grammar,
    GrammarError,
    Link,
    Node,
    Schema,
    augment,
    validate,
)
from flowsmith.flows.sizes import flow_sizes
from tests.flows.exhaust import all_allowed
from tests.flows.wide_domain import wide_content, wide_domain

Graph = dict[str, Any]


@pytest.fixture(scope="module")
def domain() -> Domain:
    return wide_domain()


@pytest.fixture(scope="module")
def codec(domain: Domain) -> Codec:
    return Codec(Schema.core(), domain)


def two_parts() -> Graph:
    """Return a flow whose one way is walked to step 4 of 20 by node 5 and from there on by node 6."""
    shared = {"cfg": 4.0, "steps": 20, "sampler_name": "euler", "scheduler": "karras", "model": ["1", 0]}
    shared |= {"positive": ["2", 0], "negative": ["3", 0]}
    first = {"add_noise": "enable", "latent_image": ["4", 0], "start_at_step": 0, "end_at_step": 4}
    last = {"add_noise": "disable", "latent_image": ["5", 0], "start_at_step": 4, "end_at_step": 10000}
    name = "return_with_leftover_noise"
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
        "5": {"class_type": "KSamplerAdvanced", "inputs": {**shared, **first, name: "enable"}},
        "6": {"class_type": "KSamplerAdvanced", "inputs": {**shared, **last, name: "disable"}},
        "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["1", 2]}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "flowsmith"}},
    }


def test_golden_tokens(codec: Codec) -> None:
    flow = Flow.from_template(two_parts(), codec.schema)
    codec.domain.check(flow, codec.schema)
    tokens = codec.encode(flow)
    assert codec.decode(tokens) == flow
    assert [codec.vocabulary[token].replace("KSamplerAdvanced", "K") for token in tokens] == [
        "SaveImage", "VAEDecode",
        "K:continue",
        "CheckpointLoaderSimple", "CheckpointLoaderSimple.ckpt_name=a",
        "K.add_noise=disable", "K.steps=20", "K.cfg=4.0", "K.sampler_name=euler", "K.scheduler=karras",
        "CLIPTextEncode", 'positive="{prompt}"', "ref:0",
        "CLIPTextEncode", 'negative=""', "ref:0",
        "K", "ref:0",
        "K.add_noise=enable", "K.steps=20", "K.cfg=4.0", "K.sampler_name=euler", "K.scheduler=karras",
        "ref:0", "ref:0",
        "EmptyLatentImage",
        "EmptyLatentImage.width=64", "EmptyLatentImage.height=48", "EmptyLatentImage.batch_size=1",
        "K.start_at_step=0", "K.end_at_step=4", "K.return_with_leftover_noise=enable",
        "K.start_at_step=4", "K.end_at_step=10000", "K.return_with_leftover_noise=disable",
        "ref:0", 'SaveImage.filename_prefix="flowsmith"', "end",
    ]  # fmt: skip


def test_what_is_settled_by_the_other_part_is_forced(codec: Codec) -> None:
    grammar = Grammar(codec, 80)
    tokens = codec.encode(Flow.from_template(two_parts(), codec.schema))
    states = grammar.replay(tokens)
    forced = [
        codec.vocabulary[t] for t, s in zip(tokens, states, strict=True) if len(grammar.allowed(s)) == 1
    ]
    assert [name.partition(".")[2] for name in forced if name.startswith("KSamplerAdvanced.")] == [
        "add_noise=disable", "add_noise=enable", "steps=20", "sampler_name=euler", "scheduler=karras",
        "start_at_step=0", "return_with_leftover_noise=enable", "start_at_step=4",
        "return_with_leftover_noise=disable",
    ]  # fmt: skip


def change(node: str, **values: Any) -> Callable[[Graph], None]:
    return lambda graph: graph[node]["inputs"].update(values)


def steps_of(steps: int) -> Callable[[Graph], None]:
    def both(graph: Graph) -> None:
        graph["5"]["inputs"]["steps"] = graph["6"]["inputs"]["steps"] = steps

    return both


def upscale_between(graph: Graph) -> None:
    inputs = {"samples": ["5", 0], "upscale_method": "bislerp", "scale_by": 1.5}
    graph["9"] = {"class_type": "LatentUpscaleBy", "inputs": inputs}
    graph["6"]["inputs"]["latent_image"] = ["9", 0]


def plain_sampler_after(graph: Graph) -> None:
    how = {k: v for k, v in graph["6"]["inputs"].items() if "step" not in k or k == "steps"}
    inputs = {k: v for k, v in how.items() if "noise" not in k}
    graph["6"] = {"class_type": "KSampler", "inputs": {**inputs, "denoise": 1.0}}


def picture_before(graph: Graph) -> None:
    """Put a whole way before the first part, which then starts later."""
    whole = {"latent_image": ["4", 0], "return_with_leftover_noise": "disable", "end_at_step": 10000}
    graph["9"] = {"class_type": "KSamplerAdvanced", "inputs": {**graph["5"]["inputs"], **whole}}
    graph["5"]["inputs"].update(latent_image=["9", 0], start_at_step=4, end_at_step=10)
    graph["6"]["inputs"].update(start_at_step=10)


@pytest.mark.parametrize(
    "right",
    [
        change("5", cfg=1.0),
        change("6", positive=["9", 0], model=["10", 0]),
        steps_of(8),
        picture_before,
        change("6", end_at_step=10),
    ],
)
def test_ways_that_end_without_noise(right: Callable[[Graph], None], codec: Codec) -> None:
    graph = two_parts()
    graph["9"] = {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}, sharp", "clip": ["1", 1]}}
    graph["10"] = {"class_type": "RescaleCFG", "inputs": {"model": ["1", 0], "multiplier": 0.7}}
    right(graph)
    flow = Flow.from_template(graph, codec.schema)
    assert codec.domain.issues(flow, codec.schema) == []
    tokens = codec.encode(flow)
    assert codec.decode(tokens) == flow
    grammar = Grammar(codec, len(tokens))
    assert grammar.advance(grammar.replay(tokens)[-1], tokens[-1]).done


@pytest.mark.parametrize(
    ("wrong", "kinds", "says"),
    [
        (
            change("7", samples=["5", 0]),
            ["noise_left"],
            "leaves noise in the picture; link it to a KSamplerAdvanced with add_noise=disable",
        ),
        (upscale_between, ["noise_left", "parts_do_not_fit"], "'a LatentUpscaleBy' holds no noise to go on"),
        (plain_sampler_after, ["noise_left"], "latent_image='a KSamplerAdvanced with return_with_left"),
        (change("6", add_noise="enable"), ["noise_left"], "leaves noise in the picture"),
        (
            change("5", return_with_leftover_noise="disable"),
            ["parts_do_not_fit"],
            "holds no noise to go on with; link a KSamplerAdvanced with return_with_leftover_noise=enable, "
            "or set add_noise=enable",
        ),
        (change("6", steps=8), ["parts_do_not_fit"], "steps=8 is not where the noise was left; use 20"),
        (change("6", sampler_name="dpmpp_2m"), ["parts_do_not_fit"], "use 'euler'"),
        (change("6", scheduler="normal"), ["parts_do_not_fit"], "use 'karras'"),
        (change("6", start_at_step=10), ["parts_do_not_fit"], "start_at_step=10 is not where .*; use 4"),
        (change("6", start_at_step=0), ["parts_do_not_fit"], "start_at_step=0 is not where .*; use 4"),
        (
            change("6", end_at_step=4),
            ["parts_do_not_fit"],
            "start_at_step=4 leaves no step to walk; start before step 4",
        ),
        (steps_of(4), ["parts_do_not_fit"] * 2, "end_at_step=4 leaves no noise; stop before step 4, or set"),
        (change("5", start_at_step=4, end_at_step=10), ["noise_left", "parts_do_not_fit"], "0 for an empty"),
        (
            change("6", return_with_leftover_noise="enable"),
            ["noise_left", "parts_do_not_fit"],
            "return_with_leftover_noise='enable' would make a third part of a way; use disable",
        ),
    ],
)
def test_parts_that_do_not_fit(
    wrong: Callable[[Graph], None], kinds: list[str], says: str, codec: Codec
) -> None:
    graph = two_parts()
    wrong(graph)
    flow = Flow.from_template(graph, codec.schema)
    assert validate(flow, codec.schema) == []
    issues = codec.domain.issues(flow, codec.schema)
    assert sorted(issue.type for issue in issues) == kinds
    text = "; ".join(issue.message for issue in issues)
    assert re.search(says, text), text
    free = wide_domain(sample_empty_latents=False)
    assert free.issues(flow, codec.schema) == []  # where noise is allowed, so are these
    loose = Codec(Schema.core(), free)
    assert loose.decode(loose.encode(flow)) == flow
    loose_grammar = Grammar(loose, 80)
    loose_grammar.replay(loose.encode(flow))
    try:
        tokens = codec.encode(flow)
    except CodecError:
        return
    with pytest.raises(GrammarError, match="leads to no valid flow"):
        Grammar(codec, 80).replay(tokens)


def test_a_way_counts_its_steps_once(codec: Codec) -> None:
    graph = two_parts()
    sizes = flow_sizes(Flow.from_template(graph, codec.schema).nodes, codec.domain)
    assert sum(size.pixel_steps for size in sizes) == 64 * 48 * 20
    free = wide_domain(sample_empty_latents=False)  # where nothing is kept together, nothing is left out
    sizes = flow_sizes(Flow.from_template(graph, codec.schema).nodes, free)
    assert sum(size.pixel_steps for size in sizes) == 64 * 48 * 40


def test_variants_change_both_parts_together(codec: Codec) -> None:
    base = Flow.from_template(two_parts(), codec.schema)
    variants = [flow for _, flow in augment({"x": base}, codec.domain, Schema.core(), Random(3), 150)]
    for flow in variants:
        assert codec.domain.issues(flow, codec.schema) == []
    for name in ("steps", "sampler_name", "scheduler", "cfg"):
        values = [
            [n.get(name) for n in flow.nodes if n.class_type == "KSamplerAdvanced"] for flow in variants
        ]
        assert len({value for pair in values for value in pair}) > 1, name
        assert all(one == other for one, other in values) is (name != "cfg")


def only_advanced() -> Domain:
    """Return a domain of which the flows can be listed: chains of ways, in up to three nodes."""
    content = wide_content()
    content["classes"] = {
        "SaveImage": 1, "VAEDecode": 1, "EmptyLatentImage": 1, "CheckpointLoaderSimple": 1, "CLIPTextEncode": 2,
        "KSamplerAdvanced": 3,
    }  # fmt: skip
    content["values"] |= {
        "CheckpointLoaderSimple.ckpt_name": ["a"], "EmptyLatentImage.width": [48],
        "EmptyLatentImage.height": [48], "KSamplerAdvanced.steps": [3, 8], "KSamplerAdvanced.cfg": [4.0],
        "KSamplerAdvanced.sampler_name": ["euler"], "KSamplerAdvanced.scheduler": ["normal", "karras"],
        "KSamplerAdvanced.start_at_step": [0, 2], "KSamplerAdvanced.end_at_step": [2, 9],
    }  # fmt: skip
    content["texts"] = {"positive": ["{prompt}"], "negative": [""]}
    content |= {"max_pixel_steps": 48 * 48 * 11, "upscale_factors": {}}
    content["values"] = {k: v for k, v in content["values"].items() if k.split(".")[0] in content["classes"]}
    return Domain.from_json(content)


def listed(codec: Codec) -> set[str]:
    """Name all flows of that domain, by building every chain and asking the domain about it."""
    start = [
        Node("CheckpointLoaderSimple", (("ckpt_name", "a"),)),
        Node("CLIPTextEncode", (("text", "{prompt}"), ("clip", Link(0, 1)))),
        Node("CLIPTextEncode", (("text", ""), ("clip", Link(0, 1)))),
        Node("EmptyLatentImage", (("width", 48), ("height", 48), ("batch_size", 1))),
    ]
    grids = [codec.domain.values[f"KSamplerAdvanced.{name}"] for name in ("steps", "scheduler")]
    parts = [codec.domain.values[f"KSamplerAdvanced.{name}_at_step"] for name in ("start", "end")]
    modes = [("enable", "disable"), ("enable", "enable"), ("disable", "disable")]
    nodes = []
    for (steps, scheduler, first, stop), (add, leave) in itertools.product(
        itertools.product(*grids, *parts), modes
    ):
        how: Any = (("model", Link(0, 0)), ("add_noise", add), ("steps", steps), ("cfg", 4.0))
        how += (("sampler_name", "euler"), ("scheduler", scheduler), ("positive", Link(1, 0)))
        ends = (("start_at_step", first), ("end_at_step", stop), ("return_with_leftover_noise", leave))
        nodes.append(((*how, ("negative", Link(2, 0))), ends))
    keys = set()
    chains = [start]
    while chains:
        chain = chains.pop()
        latent = Link(len(chain) - 1, 0)
        decode = Node("VAEDecode", (("samples", latent), ("vae", Link(0, 2))))
        save = Node("SaveImage", (("images", Link(len(chain), 0)), ("filename_prefix", "flowsmith")))
        flow = Flow.from_nodes([*chain, decode, save], codec.schema)
        issues = codec.domain.issues(flow, codec.schema)
        if not issues:
            keys.add(flow.key)
        # What a longer chain can mend is what is decoded too early.
        inner = [issue for issue in issues if issue.input not in ("samples", "images")]
        if inner or len(chain) == len(start) + 3:
            continue
        for how, ends in nodes:
            chains.append([*chain, Node("KSamplerAdvanced", (*how, ("latent_image", latent), *ends))])
    return keys


def test_the_grammar_allows_exactly_the_flows_of_the_domain() -> None:
    codec = Codec(Schema.core(), only_advanced())
    found = all_allowed(codec, 70)
    assert len(found) == len(set(found))  # one flow, one way to write it
    assert set(found) == listed(codec)
    assert len(found) > 100


def pressed() -> list[dict[str, Any]]:
    content = wide_content()
    classes, values = content["classes"], content["values"]

    def grids(**changes: Any) -> dict[str, Any]:
        return {**values, **{f"KSamplerAdvanced.{name}": grid for name, grid in changes.items()}}

    alone = {name: most for name, most in classes.items() if name != "KSampler"}
    kept = {name: grid for name, grid in values.items() if not name.startswith("KSampler.")}
    several = {name: 2 * most for name, most in classes.items()}
    return [
        {"classes": alone, "values": kept},
        {"classes": {**classes, "KSamplerAdvanced": 2, "KSampler": 1}},
        {"classes": {**classes, "KSamplerAdvanced": 1}},
        {"classes": several},
        {"values": grids(add_noise=["enable"], return_with_leftover_noise=["disable"])},
        {"values": grids(steps=[5], start_at_step=[0, 4], end_at_step=[4, 20])},
        {"values": grids(start_at_step=[0, 4, 6, 30], end_at_step=[0, 6, 7])},
        {"max_pixel_steps": 48 * 48 * 20},
        {"max_pixel_steps": 48 * 48 * 7},
        {"sample_empty_latents": False, "classes": several},
    ]


@pytest.mark.parametrize("budget", [45, 120])
@pytest.mark.parametrize("number", range(len(pressed())))
def test_other_domains(number: int, budget: int) -> None:
    grammar = Grammar(Codec(Schema.core(), wide_domain(**pressed()[number])), budget)
    codec, rng = grammar.codec, Random(number)
    for _ in range(100):
        tokens = grammar.random_walk(rng)
        flow = codec.decode(tokens)
        assert len(tokens) <= budget
        assert validate(flow, codec.schema) == []
        assert codec.domain.issues(flow, codec.schema) == []
        assert codec.decode(codec.encode(flow)) == flow


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"add_noise": ["disable"]}, "add_noise' lacks 'enable', which every picture needs; add it"),
        ({"return_with_leftover_noise": ["enable"]}, "lacks 'disable', which every picture needs"),
        ({"start_at_step": [4, 10]}, "start_at_step' lacks 0, which empty latents need; add it"),
        ({"end_at_step": [0]}, "end_at_step' lets nothing be sampled; add a step, or 10000"),
        ({"add_noise": ["enable"]}, "noise' has 'enable', but .*add_noise' lacks 'disable'.*; add 'disable'"),
        (
            {"return_with_leftover_noise": ["disable"]},
            "add_noise' has 'disable', but .*noise' lacks 'enable', without which .*take 'disable' out",
        ),
        ({"end_at_step": [3, 10000]}, "no step is in both .*; add one"),
        ({"start_at_step": [0, 10], "steps": [8]}, "no step is in both .*; add one"),
        ({"end_at_step": [4], "start_at_step": [0, 4]}, "no step is in both .*below another end"),
    ],
)
def test_domains_in_which_a_value_has_no_place(changes: dict[str, Any], says: str) -> None:
    content = wide_content()
    content["values"] |= {f"KSamplerAdvanced.{name}": grid for name, grid in changes.items()}
    domain = Domain.from_json(content)
    with pytest.raises(DomainError, match=says):
        domain.restrict(Schema.core())
    content["sample_empty_latents"] = False
    Domain.from_json(content).restrict(Schema.core())
