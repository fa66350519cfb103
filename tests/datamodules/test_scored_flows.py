from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.scored_flows import ScoredBatch, ScoredFlowsData
from flowsmith.errors import FlowsmithError
from flowsmith.rewards.splits import SplitError
from flowsmith.scored_flows import ScoredFlow, to_table, write_scored_flows
from tests.rewards.world import DOMAIN, scored_flows

ROWS = scored_flows(prompts=45, flows_per_prompt=6, flows=60)


def data(path: Path, rows: list[ScoredFlow] | None = None, **settings: Any) -> ScoredFlowsData:
    file = path / "rows.parquet"
    write_scored_flows(file, to_table(ROWS if rows is None else rows))
    module = ScoredFlowsData(str(file), str(DOMAIN), **settings)
    module.setup("fit")
    return module


def batches(loader: Any) -> list[ScoredBatch]:
    return list(loader)


def test_every_row_stands_where_prompt_and_base_flow_say(tmp_path: Path) -> None:
    module = data(tmp_path)
    train, held = batches(module.train_dataloader()), batches(module.val_dataloader())
    rows = sorted(ROWS, key=lambda row: row.sample_id)
    seen = {int(i): part for b in [*train, *held] for i, part in zip(b.rows, b.parts, strict=True)}
    assert sorted(seen) == list(range(len(rows)))  # each row once

    new_flows = {rows[i].base_flow for i, part in seen.items() if part in ("unseen_flows", "unseen_both")}
    assert len(new_flows) == -(-len({row.base_flow for row in rows}) // 5)
    for i, part in seen.items():
        new = (rows[i].split == "validation", rows[i].base_flow in new_flows)
        assert new == (part in ("unseen_prompts", "unseen_both"), part in ("unseen_flows", "unseen_both"))
    assert {part for b in train for part in b.parts} == {"train"}
    assert "train" not in {part for b in held for part in b.parts}


def test_batches_hold_what_the_rows_say(tmp_path: Path) -> None:
    rows = sorted(ROWS, key=lambda row: row.sample_id)
    for batch in batches(data(tmp_path).train_dataloader()):
        for place, i in enumerate(batch.rows.tolist()):
            row = rows[i]
            assert (batch.prompt_ids[place], batch.prompts[place]) == (row.prompt_id, row.prompt)
            assert batch.flows[place].key == row.flow_key
            assert float(batch.scores[place]) == pytest.approx(row.score, abs=1e-6)


def test_scale_and_captions_come_from_training_rows_alone(tmp_path: Path) -> None:
    module = data(tmp_path)
    train = ScoredBatch.join(batches(module.train_dataloader()))
    assert module.target_mean == pytest.approx(float(train.scores.mean()), abs=1e-5)
    assert module.target_std == pytest.approx(float(train.scores.std()), abs=1e-5)
    assert set(module.captions) == set(train.prompts)
    assert float(train.weights.mean()) == pytest.approx(1)


def test_order_of_rows_and_shards_does_not_matter(tmp_path: Path) -> None:
    whole = data(tmp_path)
    shards = tmp_path / "shards"
    for number in range(3):
        write_scored_flows(shards / f"{number}.parquet", to_table(ROWS[::-1][number::3]))
    split = ScoredFlowsData(str(shards), str(DOMAIN))
    split.setup("fit")
    for a, b in zip(batches(whole.train_dataloader()), batches(split.train_dataloader()), strict=True):
        assert a.prompt_ids == b.prompt_ids
        assert torch.equal(a.scores, b.scores)


def test_rows_of_a_prompt_stay_together_up_to_the_limit(tmp_path: Path) -> None:
    for batch in batches(data(tmp_path, prompts_per_batch=1).val_dataloader()):
        assert len(batch.prompts) >= len(set(batch.prompt_ids))
    sizes = [
        len(b.prompts)
        for b in batches(data(tmp_path, prompts_per_batch=1, rows_per_prompt=4).train_dataloader())
    ]
    assert max(sizes) <= 4
    assert sum(sizes) == sum(len(b.prompts) for b in batches(data(tmp_path).train_dataloader()))


def test_failed_and_test_rows_are_left_out(tmp_path: Path) -> None:
    broken = replace(ROWS[1], sample_id="x", judges={}, score=None, status="failed", error="no memory")
    secret = replace(ROWS[1], sample_id="y", split="test", prompt_id="secret", score=1e6)
    module = data(tmp_path, [*ROWS, broken, secret])
    everything = [*batches(module.train_dataloader()), *batches(module.val_dataloader())]
    assert sum(len(b.prompts) for b in everything) == len(ROWS)
    assert "secret" not in {p for b in everything for p in b.prompt_ids}


def test_balance_gives_each_base_flow_the_same_total(tmp_path: Path) -> None:
    module = data(tmp_path, balance="base_flows")
    rows = sorted(ROWS, key=lambda row: row.sample_id)
    totals: dict[str, float] = {}
    for batch in batches(module.train_dataloader()):
        for i, weight in zip(batch.rows.tolist(), batch.weights.tolist(), strict=True):
            totals[rows[i].base_flow] = totals.get(rows[i].base_flow, 0) + weight
    assert max(totals.values()) == pytest.approx(min(totals.values()), rel=1e-4)


def test_prompts_can_be_held_out_without_a_validation_split(tmp_path: Path) -> None:
    rows = [replace(row, split="train") for row in ROWS]
    with pytest.raises(SplitError, match=r"held_out_prompts to 0\.1"):
        data(tmp_path, rows)
    held = ScoredBatch.join(batches(data(tmp_path, rows, held_out_prompts=0.1).val_dataloader()))
    new = {p for p, part in zip(held.prompt_ids, held.parts, strict=True) if part == "unseen_prompts"}
    assert len(new) == 5  # a tenth of 45, rounded up


def test_moving_keeps_flows_as_they_are(tmp_path: Path) -> None:
    batch = batches(data(tmp_path).val_dataloader())[0]
    flows = batch.flows
    assert batch.to("cpu", non_blocking=True).flows is flows


def test_equal_scores_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="nothing to learn"):
        data(tmp_path, [replace(row, score=1.0) for row in ROWS])


def test_flows_outside_of_the_domain_are_told_at_the_door(tmp_path: Path) -> None:
    odd = replace(ROWS[0], flow=ROWS[0].flow.replace('"steps":', '"steps":1'))
    assert odd.flow != ROWS[0].flow
    with pytest.raises(FlowsmithError, match="steps"):
        data(tmp_path, [odd, *ROWS[1:]])


@pytest.mark.parametrize(
    "settings", [{"held_out_flows": 1.0}, {"prompts_per_batch": 0}, {"held_out_prompts": -0.1}]
)
def test_impossible_settings(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(SplitError):
        data(tmp_path, **settings)
