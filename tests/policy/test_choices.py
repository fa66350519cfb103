"""The tree of choices says what the grammar says, whoever walked there before."""

import copy
import pickle
import random

import pytest
import torch

from flowsmith.flows import GrammarError
from flowsmith.policy import choices as module
from flowsmith.policy.allowed import AllowedSets
from tests.policy.world import BUDGET, small_codec, small_policy


def fresh() -> AllowedSets:
    return AllowedSets(small_policy().grammar, small_codec().size)


def walk(sets: AllowedSets, seed: int) -> list[int]:
    """Write a flow at random, checking every choice against the grammar itself."""
    grammar, rng = small_policy().grammar, random.Random(seed)
    state, choice, tokens = grammar.start(), sets.choices.first(), list[int]()
    new = list(choice.run)
    while True:
        for token in new:
            state = grammar.advance(state, token)
        tokens += new
        if choice.done:
            return tokens
        allowed = grammar.allowed(state)
        assert len(allowed) > 1
        assert sets.masks([choice.allowed or 0])[0].nonzero().flatten().tolist() == list(allowed)
        new = [rng.choice(allowed)]
        choice = sets.choices.after(choice, new[0])
        new += choice.run


def test_flows_walked_by_choices_are_those_of_the_grammar() -> None:
    sets, grammar = fresh(), small_policy().grammar
    flows = [walk(sets, seed) for seed in range(12)]
    assert len({tuple(flow) for flow in flows}) > 6
    for flow in flows:
        replay = sets.replay(tuple(flow))  # raises where the grammar does not allow it
        counts = [len(grammar.allowed(state)) for state in grammar.replay(flow)]
        assert replay.free == tuple(place for place, count in enumerate(counts) if count > 1)
        assert len(flow) <= BUDGET
        small_codec().decode(flow)


def test_a_flow_walked_again_asks_the_grammar_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = fresh()
    flow = walk(sets, 3)
    monkeypatch.setattr(type(sets._grammar), "step", None)
    choice, tokens = sets.choices.first(), list[int]()
    tokens += choice.run
    while not choice.done:
        choice = sets.choices.after(choice, flow[len(tokens)])
        tokens += [flow[len(tokens)], *choice.run]
    assert tokens == flow


def test_forbidden_tokens_are_refused_and_leave_nothing_behind() -> None:
    sets = fresh()
    first = sets.choices.first()
    for _ in range(2):
        with pytest.raises(GrammarError):
            sets.choices.after(first, small_codec().size - 1 if first.allowed is None else 0)


def test_the_tree_is_bounded_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 40)
    sets = fresh()
    flows = [walk(sets, seed) for seed in range(6)]
    assert flows == [walk(fresh(), seed) for seed in range(6)]
    nodes, stack = 0, [sets.choices.first()]
    while stack:
        nodes += 1
        stack += stack.pop().following.values()
    assert nodes <= 40 + BUDGET


def test_copies_and_pickles_start_empty_and_agree() -> None:
    sets = fresh()
    flow = walk(sets, 1)
    for other in (copy.deepcopy(sets), pickle.loads(pickle.dumps(sets))):
        assert not other.choices.first().following
        assert walk(other, 1) == flow


def test_many_sets_fit_the_table() -> None:
    sets = AllowedSets(small_policy().grammar, 300)
    numbers = [sets.number((place, place + 1)) for place in range(200)]
    assert numbers == list(range(200)) == [sets.number((place, place + 1)) for place in range(200)]
    masks = sets.masks(numbers)
    assert torch.equal(masks.nonzero()[:, 1].view(200, 2)[:, 0], torch.arange(200))
    assert masks.sum() == 400
    assert sets.masks([]).shape == (0, 300)
