"""At the width of a real installation: real flows go through tokens, and random ones are valid."""

from functools import cache
from random import Random

from flowsmith.flows import Codec, Flow, GrammarError, Schema, validate
from flowsmith.flows.wide.full_domain import full_domain, schema_of_flows
from flowsmith.flows.wide.grammar import WideGrammar
from flowsmith.flows.wide.spelling import Spelling
from tests.flows.records import recorded
from tests.flows.test_import_recorded import imports


@cache
def world() -> tuple[Codec, list[Flow]]:
    core = {each["file"] for each in recorded("workflows/manifest.json") if each["core_only"]}
    found = {each.flow.key: each.flow for (name, _), each in imports().items() if each.flow and name in core}
    flows = list(found.values())
    schema = schema_of_flows(Schema.from_object_info(recorded("object_info_0.33.0.json")), flows)
    merges = Spelling.train(["a red fox"], 300).merges
    return Codec(schema, full_domain(schema, flows, merges=merges)), flows


def test_every_real_flow_comes_back() -> None:
    codec, flows = world()
    assert len(flows) >= 120
    assert all(codec.decode(codec.encode(flow)) == flow for flow in flows)


def test_most_real_flows_can_be_walked_to() -> None:
    codec, flows = world()
    grammar, walked = WideGrammar(codec, 250), 0
    for flow in flows:
        tokens = codec.encode(flow)
        try:
            grammar.replay(tokens)
            walked += 1
        except GrammarError as error:  # a text that ignores the prompt, or a batch of several pictures
            assert "token 'text:" in str(error) or "token 'close'" in str(error)  # noqa: PT017
    assert walked >= 100


def test_random_flows_are_valid() -> None:
    codec, _ = world()
    grammar, rng, met = WideGrammar(codec, 150), Random(0), set[str]()
    for _ in range(100):
        flow = codec.decode(grammar.random_walk(rng))
        assert validate(flow, codec.schema) == []
        assert codec.domain.issues(flow, codec.schema) == []
        met |= {node.class_type for node in flow.nodes}
    assert len(met) > 0.9 * len(codec.domain.classes)
