"""Pairs as a datamodule: from scored flows, from a corpus, in a repeatable order."""

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import yaml

from datamodules.prompt_flow_pairs import PairBatch, PromptFlowPairs
from flowsmith.flows import Flow, random_flow
from flowsmith.policy import PolicyError
from flowsmith.policy.pairs import Pair
from flowsmith.prompts import Prompt, Split, write_prompts
from flowsmith.scored_flows import ScoredFlow, to_table, write_scored_flows
from tests.policy.world import DOMAIN, PROMPTS, small_codec


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Write a domain, prompts, a corpus of six flows, and scored flows of every prompt with each."""
    (tmp_path / "domain.yaml").write_text(yaml.safe_dump(DOMAIN))
    splits: tuple[Split, ...] = ("train", "train", "train", "validation")
    prompts = [
        Prompt(id=f"p{i}", text=t, split=s) for i, (t, s) in enumerate(zip(PROMPTS, splits, strict=True))
    ]
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    rng, flows = Random(0), dict[str, Flow]()
    while len(flows) < 6:
        flow = random_flow(small_codec().domain, small_codec().schema, rng)
        flows[flow.key] = flow
    (tmp_path / "corpus").mkdir()
    for i, flow in enumerate(flows.values()):
        (tmp_path / "corpus" / f"flow{i}.json").write_text(json.dumps(flow.to_template()))
    rows = [
        ScoredFlow(
            sample_id=f"{prompt.id}-{key}", prompt_id=prompt.id, prompt=prompt.text, split=prompt.split,
            task="", designer="corpus", flow=json.dumps(flow.to_template()), flow_key=key, base_flow="",
            seed=0, renderer="1", weights="w", score=float(place),
        )
        for prompt in prompts
        for place, (key, flow) in enumerate(flows.items())
    ]  # fmt: skip
    write_scored_flows(tmp_path / "scored.parquet", to_table(rows))
    return tmp_path


def scored(world: Path, score_weight: float = 0.0) -> PromptFlowPairs:
    data = PromptFlowPairs(
        str(world / "domain.yaml"),
        scored_flows=str(world / "scored.parquet"),
        batch_size=5,
        text_vocabulary=300,
        score_weight=score_weight,
    )
    data.setup()
    return data


def test_pairs_follow_the_split_of_their_prompt(world: Path) -> None:
    data = scored(world)
    train, validation = list(data.train_dataloader()), list(data.val_dataloader())
    assert [len(batch.prompts) for batch in train] == [5, 5, 5, 3]
    assert {p for batch in train for p in batch.prompts} == set(PROMPTS[:3])
    assert {p for batch in validation for p in batch.prompts} == {PROMPTS[3]}
    flows = [{t for batch in batches for t in batch.tokens} for batches in (train, validation)]
    assert flows[0] == flows[1]
    assert len(flows[0]) == 6


def test_weights_rise_with_the_score(world: Path) -> None:
    weights: dict[tuple[int, ...], float] = {}
    for batch in scored(world, score_weight=1.0).train_dataloader():
        weights |= dict(zip(batch.tokens, batch.weights.tolist(), strict=True))
    ratio = sorted(weights.values())
    # Scores 0 .. 5, each equally often: variance 35 / 12; neighbours differ by exp(1 / sqrt(35 / 12)).
    step = 2.718281828 ** (1 / (35 / 12) ** 0.5)
    assert [b / a for a, b in pairwise(ratio)] == pytest.approx([step] * 5, rel=1e-4)
    assert sum(ratio) / 6 == pytest.approx(1)


def test_pairs_from_a_corpus(world: Path) -> None:
    settings = {
        "corpus": str(world / "corpus"),
        "prompts": str(world / "prompts.jsonl"),
        "pairs": 200,
        "flows": 30,
    }
    data, again = (
        PromptFlowPairs(str(world / "domain.yaml"), text_vocabulary=300, **settings)  # type: ignore[arg-type]
        for _ in range(2)
    )
    data.setup()
    again.setup()
    batches = [list(d.train_dataloader()) for d in (data, again)]
    assert [b.tokens for b in batches[0]] == [b.tokens for b in batches[1]]
    assert sum(len(b.prompts) for b in batches[0]) == 200
    assert 20 < len({t for b in batches[0] for t in b.tokens}) <= 30
    assert {p for b in data.val_dataloader() for p in b.prompts} == {PROMPTS[3]}


def test_the_tokenizer_is_the_same_on_every_process(world: Path) -> None:
    assert scored(world).tokenizer.text.to_str() == scored(world).tokenizer.text.to_str()


def test_collating_keeps_rows_together() -> None:
    pairs = [Pair("a", (1, 2), 0.5), Pair("b", (3,), 2.0)]
    batch = PairBatch.of(pairs)
    assert (batch.prompts, batch.tokens, batch.weights.tolist()) == (["a", "b"], [(1, 2), (3,)], [0.5, 2.0])


@pytest.mark.parametrize(
    "sources", [{}, {"scored_flows": "a", "corpus": "b", "prompts": "c"}, {"corpus": "b"}]
)
def test_one_source_is_needed(sources: dict[str, str]) -> None:
    with pytest.raises(PolicyError, match="one source"):
        PromptFlowPairs("domain.yaml", **sources)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("pairs", -1), ("pairs", 0)])
def test_numbers_that_leave_nothing_to_train_on(name: str, value: int) -> None:
    with pytest.raises(PolicyError, match=f"{name}={value}.*1 or more"):
        PromptFlowPairs("domain.yaml", scored_flows="a", **{name: value})  # type: ignore[arg-type]


def test_scored_flows_without_training_prompts_are_refused(world: Path) -> None:
    from flowsmith.scored_flows import read_scored_flows

    write_scored_flows(world / "scored.parquet", read_scored_flows(world / "scored.parquet", "validation"))
    with pytest.raises(PolicyError, match="no pair of the split train"):
        scored(world)
