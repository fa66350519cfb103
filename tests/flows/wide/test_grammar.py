"""What the grammar of a wide domain writes is valid, in the domain and within the budget, however it is pressed."""

import pickle
from random import Random

import pytest

from flowsmith.flows import Codec, Domain, Grammar, GrammarError, Link, validate
from flowsmith.flows.wide.grammar import WideGrammar, grammar_of
from flowsmith.flows.wide.language import WideLanguage
from tests.flows.wide.small_world import codec, domain, flows, schema
from tests.flows.wide_domain import wide_domain

CODEC = codec()


def walk(grammar: WideGrammar, rng: Random) -> list[int]:
    """Write a random flow and assert all that the grammar promises about it."""
    tokens = grammar.random_walk(rng)
    assert len(tokens) <= grammar.budget
    flow = grammar.codec.decode(tokens)
    assert validate(flow, grammar.codec.schema) == []
    assert grammar.codec.domain.issues(flow, grammar.codec.schema) == []
    assert grammar.codec.decode(grammar.codec.encode(flow)) == flow
    assert isinstance(grammar.codec.language, WideLanguage)
    assert max(tokens) < grammar.codec.language.close  # no literals
    return tokens


def test_walks_meet_every_class_and_are_valid() -> None:
    grammar, rng, met = WideGrammar(CODEC, 120), Random(0), set[str]()
    for _ in range(150):
        met |= {node.class_type for node in CODEC.decode(walk(grammar, rng)).nodes}
    assert met == set(CODEC.domain.classes)


def test_the_smallest_budget_still_gives_flows() -> None:
    with pytest.raises(GrammarError, match=r"raise the budget to \d+ or more"):
        WideGrammar(CODEC, 3)
    least = next(budget for budget in range(3, 40) if _fits(budget))
    for budget in range(least, least + 25):
        grammar, rng = WideGrammar(CODEC, budget), Random(budget)
        for _ in range(10):
            walk(grammar, rng)


def _fits(budget: int) -> bool:
    try:
        WideGrammar(CODEC, budget)
    except GrammarError:
        return False
    return True


def test_counts_are_kept_and_never_lead_into_a_dead_end() -> None:
    content = domain().to_json()
    for most in (1, 2):
        content["classes"] = dict.fromkeys(content["classes"], most) | {"Encode": 2}
        grammar = WideGrammar(Codec(schema(), Domain.from_json(content)), 150)
        for number in range(60):
            walk(grammar, Random(number))


def test_the_flows_that_it_was_made_of_can_be_walked_to() -> None:
    for flow in flows():
        tokens = CODEC.encode(flow)
        grammar = WideGrammar(CODEC, len(tokens) + 8)
        states = grammar.replay(tokens)
        assert grammar.advance(states[-1], tokens[-1]).done
        again = pickle.loads(pickle.dumps(grammar))
        assert again.replay(tokens) == states
        assert len(set(states)) == len(tokens)


def test_masks_hold_the_allowed_tokens() -> None:
    grammar = WideGrammar(CODEC, 100)
    states = grammar.replay(grammar.random_walk(Random(3)))
    mask = grammar.mask(states)
    assert [tuple(row.nonzero().flatten().tolist()) for row in mask] == [grammar.allowed(s) for s in states]


def test_what_a_user_asks_for_reaches_every_positive_text() -> None:
    grammar, rng = WideGrammar(CODEC, 120), Random(5)
    for _ in range(60):
        flow = CODEC.decode(grammar.random_walk(rng))
        for node in flow.nodes:
            source = node.get("positive")
            if node.class_type != "Sample" or not isinstance(source, Link):
                continue
            while flow.nodes[source.node].class_type in ("ZeroOut", "Switch"):
                node = flow.nodes[source.node]
                source = next(link for _, link in node.links())
            text = flow.nodes[source.node].get("text")
            assert isinstance(text, Link) or "{prompt}" in str(text)


def test_an_equal_node_is_referred_to_not_written_again() -> None:
    grammar = WideGrammar(CODEC, 100)
    state = grammar.start()
    for name in ("Save(format=exr)", "Decode", "Sample", "Loader", "Loader.name=a.st", "Sample.steps=20", "Encode",
                 'positive="{prompt}"', "Loader#1"):  # fmt: skip
        state = grammar.advance(state, CODEC.language.ids[name])
    assert [CODEC.vocabulary[token] for token in grammar.allowed(state)] == ["Loader.name=b.st"]
    with pytest.raises(GrammarError, match=r"'end' at place 9: .* allowed: Loader\.name=b\.st"):
        grammar.advance(state, CODEC.language.end)


def test_each_grammar_takes_its_own_kind_of_domain() -> None:
    from flowsmith.flows import Schema

    narrow = Codec(Schema.core(), wide_domain())
    with pytest.raises(GrammarError, match="has no width; use Grammar"):
        WideGrammar(narrow, 100)
    with pytest.raises(GrammarError, match="has a width; use WideGrammar"):
        Grammar(CODEC, 100)
    assert isinstance(grammar_of(narrow, 100), Grammar)
    assert isinstance(grammar_of(CODEC, 100), WideGrammar)
