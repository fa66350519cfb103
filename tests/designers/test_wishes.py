"""What a user fixes is kept by every flow that the grammar can write, and what cannot be kept is refused."""

from random import Random
from typing import Any

import pytest

from flowsmith.designers.restricted_grammar import RestrictedGrammar
from flowsmith.designers.wishes import WishError, Wishes, restrict
from flowsmith.flows import Codec, Flow, Grammar, GrammarError, Node, validate
from flowsmith.flows.wide.full_domain import full_domain
from flowsmith.flows.wide.grammar import grammar_of
from tests.flows_for_tests import codec, some_flows

GRAMMAR = Grammar(codec(), 96)


def walks(wishes: Wishes, number: int = 60) -> list[Flow]:
    """Return flows that a grammar under wishes writes at random."""
    grammar = RestrictedGrammar(GRAMMAR, restrict(codec().domain, codec().schema, wishes))
    rng, flows = Random(1), []
    for _ in range(number):
        state, tokens = grammar.start(), list[int]()
        while not state.done:
            tokens.append(rng.choice(grammar.allowed(state)))
            state = grammar.advance(state, tokens[-1])
        assert GRAMMAR.replay(tokens), "what the smaller grammar writes, the whole one allows"
        assert len(grammar.replay(tokens)) == len(tokens)
        flows.append(codec().decode(tokens))
    assert len({flow.key for flow in flows}) > 1
    for flow in flows:
        assert validate(flow, codec().schema) == []
        assert codec().domain.issues(flow, codec().schema) == []
    return flows


def nodes(flows: list[Flow], name: str) -> list[Node]:
    return [node for flow in flows for node in flow.nodes if node.get(name) is not None]


def test_only_models() -> None:
    flows = walks(Wishes(models=["mini_pencil", "mini_striped.safetensors"]))
    named = {
        value
        for flow in flows
        for node in flow.nodes
        for name, value in node.inputs
        if name in ("ckpt_name", "lora_name", "vae_name", "model_name")
    }
    assert named == {"mini_pencil", "mini_striped.safetensors"}
    classes = {node.class_type for flow in flows for node in flow.nodes}
    assert not classes & {"VAELoader", "UpscaleModelLoader", "ImageUpscaleWithModel"}


def test_only_nodes() -> None:
    wanted = {
        "SaveImage", "VAEDecode", "KSampler", "EmptyLatentImage", "CheckpointLoaderSimple", "CLIPTextEncode",
        "ImageScaleBy",
    }  # fmt: skip
    flows = walks(Wishes(nodes=sorted(wanted)))
    assert {node.class_type for flow in flows for node in flow.nodes} == wanted


def test_most_steps_resolution_and_pins() -> None:
    wishes = Wishes(
        max_steps=12,
        resolution=(96, 64),
        pins=["KSampler.cfg=4", "CheckpointLoaderSimple.ckpt_name=mini_base"],
    )
    flows = walks(wishes)
    assert {node.get("steps") for node in nodes(flows, "steps")} <= {4, 6, 8, 12}
    assert {(node.get("width"), node.get("height")) for node in nodes(flows, "width")} == {(96, 64)}
    assert {node.get("cfg") for node in nodes(flows, "cfg") if node.class_type == "KSampler"} == {4.0}
    assert {node.get("ckpt_name") for node in nodes(flows, "ckpt_name")} == {"mini_base"}


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"models": ["mini_bse"]}, "did you mean 'mini_base'"),
        ({"models": ["mini_poster.safetensors"]}, "together, these wishes leave no"),
        ({"nodes": ["KSamplr"]}, "did you mean 'KSampler'"),
        ({"nodes": ["KSampler", "SaveImage"]}, "leave no node that a flow could end in"),
        ({"max_steps": 3}, "learned no fewer than 4"),
        ({"resolution": (64, 100)}, r"EmptyLatentImage\.height=100 .*allowed: 48, 64, 80, 96"),
        ({"pins": ["KSampler.cfg=4.01"]}, r"KSampler\.cfg=4\.01 is nothing that the designer learned"),
        ({"pins": ["KSampler.cfg"]}, r"write Class\.input=value"),
        ({"pins": ["CLIPTextEncode.text=a fox"]}, r"write Class\.input=value"),
        ({"pins": ["KSampler.model=x"]}, r"write Class\.input=value"),
    ],
)
def test_what_cannot_be_kept_is_refused(wishes: dict[str, Any], told: str) -> None:
    with pytest.raises(WishError, match=told):
        RestrictedGrammar(GRAMMAR, restrict(codec().domain, codec().schema, Wishes(**wishes)))


def test_a_resolution_beyond_the_bound_on_pixels_leaves_no_flow() -> None:
    from dataclasses import replace

    tight = replace(codec().domain, max_pixels=64 * 64)
    with pytest.raises(WishError, match="leave no flow"):
        RestrictedGrammar(GRAMMAR, restrict(tight, codec().schema, Wishes(resolution=(96, 96))))


def test_no_wish_is_the_whole_grammar() -> None:
    grammar = RestrictedGrammar(GRAMMAR, restrict(codec().domain, codec().schema, Wishes()))
    rng, state, whole = Random(3), grammar.start(), GRAMMAR.start()
    while not state.done:
        assert grammar.allowed(state) == GRAMMAR.allowed(whole)
        token = rng.choice(grammar.allowed(state))
        state, whole = grammar.advance(state, token), GRAMMAR.advance(whole, token)


def test_a_token_of_the_whole_domain_alone_is_not_allowed() -> None:
    grammar = RestrictedGrammar(
        GRAMMAR, restrict(codec().domain, codec().schema, Wishes(models=["mini_base"]))
    )
    other = codec().vocabulary.index("CheckpointLoaderSimple.ckpt_name=mini_crowd")
    with pytest.raises(GrammarError, match="not in the smaller domain"):
        grammar.advance(grammar.start(), other)
    row = grammar.mask([grammar.start()])[0]
    assert row.nonzero()[:, 0].tolist() == list(grammar.allowed(grammar.start()))


def test_a_wide_grammar_keeps_to_wishes_as_well() -> None:
    schema = codec().schema
    wide = Codec(schema, full_domain(schema, some_flows(40)))
    whole: Any = grammar_of(wide, 120)
    grammar = RestrictedGrammar(
        whole, restrict(wide.domain, wide.schema, Wishes(models=["mini_base"], max_steps=12))
    )
    rng = Random(2)
    for _ in range(40):
        state, tokens = grammar.start(), list[int]()
        while not state.done:
            tokens.append(rng.choice(grammar.allowed(state)))
            state = grammar.advance(state, tokens[-1])
        flow = wide.decode(tokens)
        assert wide.domain.issues(flow, wide.schema) == []
        assert {node.get("ckpt_name") for node in flow.nodes} <= {"mini_base", None}
        steps = [node.get("steps") for node in nodes([flow], "steps")]
        assert all(isinstance(number, int) and number <= 12 for number in steps)
