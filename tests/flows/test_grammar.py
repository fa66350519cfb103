"""Every walk ends in a valid flow of the domain within the budget; every flow of the domain has its walk."""

import itertools
import pickle
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import torch

from flowsmith.flows import (
    Codec,
    Domain,
    Flow,
    Grammar,
    GrammarError,
    Link,
    Node,
    Schema,
    Value,
    random_flow,
    validate,
)
from tests.flows.exhaust import all_allowed


def check_walk(grammar: Grammar, tokens: list[int]) -> Flow:
    """Assert all that the grammar promises about one walk."""
    codec = grammar.codec
    assert len(tokens) <= grammar.budget
    flow = codec.decode(tokens)
    assert validate(flow, codec.schema) == []
    assert codec.domain.issues(flow, codec.schema) == []
    # A flow holds what reaches an output, so a dead node would be among the tokens and missing here.
    names = [codec.vocabulary[token].removesuffix(":continue") for token in tokens]
    assert sum(name in codec.domain.classes for name in names) == len(flow.nodes)
    return flow


def test_ten_thousand_walks_are_valid_and_complete(codec: Codec) -> None:
    grammar, rng = Grammar(codec, 72), Random(8)
    keys = set()
    for _ in range(10_000):
        tokens = grammar.random_walk(rng)
        flow = check_walk(grammar, tokens)
        assert codec.encode(flow) == tokens
        keys.add(flow.key)
    assert len(keys) > 9_900


@pytest.mark.parametrize("budget", [23, 24, 26, 28, 31, 37, 45])
def test_tight_budgets(codec: Codec, budget: int) -> None:
    grammar, rng = Grammar(codec, budget), Random(budget)
    lengths = [len(check_walk(grammar, grammar.random_walk(rng)).nodes) for _ in range(100)]
    # 23 tokens make the plain flow and nothing else; one more affords a second loader for the VAE.
    assert min(lengths) >= 7
    assert (max(lengths) > 7) is (budget > 23)


def test_a_budget_too_small_says_how_much_is_needed(codec: Codec) -> None:
    with pytest.raises(
        GrammarError, match=r"budget=22: no flow of the domain fits \(the shortest has 23 tokens"
    ):
        Grammar(codec, 22)


def variants(domain: Domain) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield domains that press on one promise each."""
    content = domain.to_json
    yield "no steps to spare", {**content(), "max_pixel_steps": 48 * 48 * 4}
    yield "few steps", {**content(), "max_pixel_steps": 48 * 48 * 12 + 1}
    yield "no pixels to spare", {**content(), "max_pixels": 48 * 48}
    yield "few pixels", {**content(), "max_pixels": 96 * 96}
    yield "noise allowed", {**content(), "sample_empty_latents": False}
    yield (
        "one of each",
        {**content(), "classes": {**domain.classes, "CheckpointLoaderSimple": 1, "CLIPTextEncode": 2}},
    )
    several = {
        "SaveImage": 3,
        "VAEDecode": 3,
        "ImageScaleBy": 3,
        "EmptyLatentImage": 3,
        "CLIPTextEncode": 8,
        "KSampler": 5,
    }
    yield "several outputs", {**content(), "classes": {**domain.classes, **several}}
    smaller = {
        **domain.values,
        "LatentUpscaleBy.scale_by": [0.5, 1.0, 2.0],
        "ImageScaleBy.scale_by": [0.25, 3.0],
    }
    values = {name: list(grid) for name, grid in smaller.items()}
    yield "shrinking", {**content(), "values": values, "classes": {**domain.classes, **several}}
    yield "shrinking, few pixels", {**content(), "values": values, "max_pixels": 48 * 64}


@pytest.mark.parametrize("budget", [40, 110])
def test_other_domains(domain: Domain, budget: int) -> None:
    for number, (name, content) in enumerate(variants(domain)):
        grammar = Grammar(Codec(Schema.core(), Domain.from_json(content)), budget)
        rng = Random(number)
        for _ in range(60):
            tokens = grammar.random_walk(rng)
            flow = grammar.codec.decode(tokens)
            assert len(tokens) <= budget, name
            assert validate(flow, grammar.codec.schema) == [], name
            assert grammar.codec.domain.issues(flow, grammar.codec.schema) == [], name
            assert grammar.codec.decode(grammar.codec.encode(flow)) == flow, name


def test_flows_made_by_hand_can_be_walked_to_within_their_own_length(codec: Codec) -> None:
    rng = Random(9)
    grammars: dict[int, Grammar] = {}
    for _ in range(600):
        tokens = codec.encode(random_flow(codec.domain, codec.schema, rng))
        grammar = grammars.setdefault(len(tokens), Grammar(codec, len(tokens)))
        states = grammar.replay(tokens)
        assert grammar.advance(states[-1], tokens[-1]).done


def tiny(domain: Domain) -> Domain:
    """Return a domain whose flows can be listed by hand."""
    content = domain.to_json()
    content["values"] |= {
        "KSampler.steps": [4, 8], "KSampler.cfg": [4.0], "KSampler.sampler_name": ["euler"],
        "KSampler.scheduler": ["normal"],
        "KSampler.denoise": [0.6, 1.0], "EmptyLatentImage.width": [48, 96], "EmptyLatentImage.height": [48],
        "LatentUpscaleBy.upscale_method": ["bilinear"], "LatentUpscaleBy.scale_by": [1.25, 2.0],
        "CheckpointLoaderSimple.ckpt_name": ["mini_base"],
    }  # fmt: skip
    content["texts"] = {"positive": ["{prompt}"], "negative": ["a", "b"]}
    content["classes"] = {
        "SaveImage": 1, "VAEDecode": 1, "KSampler": 2, "LatentUpscaleBy": 1, "EmptyLatentImage": 1,
        "CheckpointLoaderSimple": 1, "CLIPTextEncode": 3,
    }  # fmt: skip
    content["values"] = {k: v for k, v in content["values"].items() if k.split(".")[0] in content["classes"]}
    content |= {"max_pixel_steps": 48 * 48 * 20, "max_pixels": 96 * 100, "upscale_factors": {}}
    return Domain.from_json(content)


def listed(schema: Schema, domain: Domain) -> set[str]:
    """Name all flows of the tiny domain, by counting through their parts."""
    keys = set()
    for ops in ("K", "KK", "UK", "KU", "UKK", "KUK", "KKU"):
        passes, scales = ops.count("K"), ops.count("U")
        for width, scale in itertools.product((48, 96), (1.25, 2.0) if scales else (1.0,)):
            for how in itertools.product(itertools.product((4, 8), (0.6, 1.0), ("a", "b")), repeat=passes):
                inputs: tuple[tuple[str, Value | Link], ...]
                area, spent, first, largest = width * 48.0, 0.0, True, width * 48.0
                nodes = [
                    Node("CheckpointLoaderSimple", (("ckpt_name", "mini_base"),)),
                    *(
                        Node("CLIPTextEncode", (("text", t), ("clip", Link(0, 1))))
                        for t in ("{prompt}", "a", "b")
                    ),
                    Node("EmptyLatentImage", (("width", width), ("height", 48), ("batch_size", 1))),
                ]
                settings, right = iter(how), True
                for op in ops:
                    latent = Link(len(nodes) - 1, 0)
                    if op == "U":
                        area *= scale**2
                        inputs = (("samples", latent), ("upscale_method", "bilinear"), ("scale_by", scale))
                        nodes.append(Node("LatentUpscaleBy", inputs))
                    else:
                        steps, denoise, negative = next(settings)
                        right = right and (denoise == 1.0 or not first)
                        first = False
                        spent += steps * area
                        inputs = (
                            ("model", Link(0, 0)), ("steps", steps), ("cfg", 4.0), ("sampler_name", "euler"),
                            ("scheduler", "normal"), ("positive", Link(1, 0)),
                            ("negative", Link(2 + (negative == "b"), 0)), ("latent_image", latent),
                            ("denoise", denoise),
                        )  # fmt: skip
                        nodes.append(Node("KSampler", inputs))
                    largest = max(largest, area)
                if right and spent <= domain.max_pixel_steps and largest <= domain.max_pixels:
                    nodes.append(
                        Node("VAEDecode", (("samples", Link(len(nodes) - 1, 0)), ("vae", Link(0, 2))))
                    )
                    save = (("images", Link(len(nodes) - 1, 0)), ("filename_prefix", "flowsmith"))
                    keys.add(Flow.from_nodes([*nodes, Node("SaveImage", save)], schema).key)
    return keys


def test_the_grammar_allows_exactly_the_flows_of_the_domain(domain: Domain) -> None:
    small = tiny(domain)
    codec = Codec(Schema.core(), small)
    found = all_allowed(codec, 60)
    assert len(found) == len(set(found))  # one flow, one way to write it
    assert set(found) == listed(codec.schema, small)
    assert len(found) > 50


def test_forced_positions_are_those_with_one_token(codec: Codec, corpus: dict[str, Flow]) -> None:
    grammar = Grammar(codec, 72)
    tokens = codec.encode(corpus["default"])
    forced = [
        codec.vocabulary[token]
        for token, state in zip(tokens, grammar.replay(tokens), strict=True)
        if len(grammar.allowed(state)) == 1
    ]
    assert forced == [
        "SaveImage", "CLIPTextEncode", "CLIPTextEncode", "EmptyLatentImage.batch_size=1",
        "KSampler.denoise=1.0", 'SaveImage.filename_prefix="flowsmith"', "end",
    ]  # fmt: skip


def test_masks_hold_the_allowed_tokens(codec: Codec) -> None:
    grammar, rng = Grammar(codec, 72), Random(10)
    tokens = grammar.random_walk(rng)
    states = grammar.replay(tokens)
    mask = grammar.mask(states)
    assert mask.dtype == torch.bool
    assert [tuple(row.nonzero().flatten().tolist()) for row in mask] == [
        grammar.allowed(state) for state in states
    ]
    assert all(mask[place, token] for place, token in enumerate(tokens))


def test_states_are_values(codec: Codec) -> None:
    grammar = Grammar(codec, 72)
    tokens = grammar.random_walk(Random(11))
    first, second = grammar.replay(tokens), Grammar(codec, 72).replay(tokens)
    assert first == second
    assert [hash(state) for state in first] == [hash(state) for state in second]
    assert len(set(first)) == len(tokens)
    again = pickle.loads(pickle.dumps(grammar))
    assert again.replay(tokens) == first
    end = grammar.advance(first[-1], tokens[-1])
    assert end.done
    assert grammar.allowed(end) == ()


def test_a_token_that_is_not_allowed_is_refused_and_told(codec: Codec) -> None:
    grammar = Grammar(codec, 72)
    ids = {name: place for place, name in enumerate(codec.vocabulary)}
    with pytest.raises(GrammarError, match=r"token 'KSampler' at place 0: .* allowed: SaveImage"):
        grammar.replay([ids["KSampler"]])
    with pytest.raises(GrammarError, match="id 999"):
        grammar.advance(grammar.start(), 999)
    tokens = grammar.random_walk(Random(12))
    with pytest.raises(GrammarError, match="the flow is done"):
        grammar.replay([*tokens, *tokens])


def test_an_equal_node_is_referred_to_not_written_again(codec: Codec) -> None:
    grammar = Grammar(codec, 72)
    ids = {name: place for place, name in enumerate(codec.vocabulary)}
    start = [
        "SaveImage",
        "VAEDecode",
        "KSampler",
        "CheckpointLoaderSimple",
        "CheckpointLoaderSimple.ckpt_name=mini_base",
    ]
    how = ["KSampler.steps=4", "KSampler.cfg=4.0", "KSampler.sampler_name=euler", "KSampler.scheduler=normal"]
    texts = ["CLIPTextEncode", 'positive="{prompt}"', "CheckpointLoaderSimple"]
    state = grammar.start()
    for name in [*start, *how, *texts]:
        state = grammar.advance(state, ids[name])
    assert [codec.vocabulary[t] for t in grammar.allowed(state)] == [
        "CheckpointLoaderSimple.ckpt_name=mini_pencil",
        "CheckpointLoaderSimple.ckpt_name=mini_crowd",
    ]
