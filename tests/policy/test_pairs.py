"""Pairs from scored flows and from a corpus."""

import json
import math
from random import Random
from typing import Any

import pytest

from flowsmith.flows import Flow, FlowError, random_flow
from flowsmith.policy import PolicyError
from flowsmith.policy.pairs import corpus_pairs, scored_pairs
from flowsmith.prompts import Prompt
from tests.policy.world import small_codec


def some_flows(count: int) -> list[Flow]:
    rng, found = Random(0), dict[str, Flow]()
    while len(found) < count:
        flow = random_flow(small_codec().domain, small_codec().schema, rng)
        found.setdefault(flow.key, flow)
    return list(found.values())


def row(prompt: str, flow: Flow, score: float | None, status: str = "ok") -> dict[str, Any]:
    return {
        "prompt": prompt,
        "flow": json.dumps(flow.to_template()),
        "flow_key": flow.key,
        "score": score,
        "status": status,
    }


def test_each_prompt_and_flow_once_and_no_failures() -> None:
    a, b = some_flows(2)
    rows = [
        row("x", a, 1.0),
        row("x", a, 3.0),
        row("x", b, 0.0),
        row("y", a, 0.0),
        row("z", b, None, "failed"),
    ]
    pairs = scored_pairs(rows, small_codec())
    assert [(p.prompt, small_codec().decode(p.tokens)) for p in pairs] == [("x", a), ("x", b), ("y", a)]
    assert {p.weight for p in pairs} == {1.0}


def test_weights_are_exponential_in_the_standard_score_of_the_mean() -> None:
    a, b = some_flows(2)
    # Means 2 and 0: mean 1, deviation 1, standard scores 1 and -1.
    pairs = scored_pairs(
        [row("x", a, 1.0), row("x", a, 3.0), row("x", b, 0.0)], small_codec(), score_weight=0.5
    )
    high, low = math.exp(0.5), math.exp(-0.5)
    assert [p.weight for p in pairs] == pytest.approx([2 * high / (high + low), 2 * low / (high + low)])


def test_equal_scores_weigh_one() -> None:
    a, b = some_flows(2)
    pairs = scored_pairs([row("x", a, 0.3), row("x", b, 0.3)], small_codec(), score_weight=3.0)
    assert [p.weight for p in pairs] == pytest.approx([1.0, 1.0])


def test_scores_asked_for_and_missing() -> None:
    with pytest.raises(PolicyError, match="score_weight=0"):
        scored_pairs([row("x", some_flows(1)[0], None)], small_codec(), score_weight=1.0)


@pytest.mark.parametrize(
    ("flow", "kind"), [('{"1": ', "invalid_json"), ("[3]", "invalid_graph"), ("{}", "prompt_no_outputs")]
)
def test_a_corrupt_flow_in_a_row_is_told(flow: str, kind: str) -> None:
    with pytest.raises(FlowError, match=kind):
        scored_pairs([row("x", some_flows(1)[0], 1.0) | {"flow": flow}], small_codec())


def test_corpus_pairs_use_everything_evenly_and_repeat_exactly() -> None:
    flows, prompts = some_flows(4), [Prompt(id=str(i), text=f"prompt {i}") for i in range(5)]
    pairs = corpus_pairs(flows, prompts, 2000, small_codec(), seed=0)
    assert pairs == corpus_pairs(flows, prompts, 2000, small_codec(), seed=0)
    assert pairs[:100] == corpus_pairs(flows, prompts, 100, small_codec(), seed=0)
    counts = [sum(p.tokens == tuple(small_codec().encode(f)) for p in pairs) for f in flows]
    assert all(abs(count - 500) < 100 for count in counts)  # 5 standard deviations
    assert len({(p.prompt, p.tokens) for p in pairs}) == 20


def test_nothing_to_draw_from() -> None:
    with pytest.raises(PolicyError, match="0 prompts"):
        corpus_pairs(some_flows(1), [], 5, small_codec(), seed=0)
