"""The collections that the repository ships were made with the weights, flows and prompts that it ships."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from callbacks.scored_flow_writer import hash_of_weights
from flowsmith import metrics
from flowsmith.evaluation.dense_block import dense_block
from flowsmith.execution import Executor
from flowsmith.flows import Domain, Schema, load_corpus
from flowsmith.metrics import Judge
from flowsmith.prompts import read_prompts
from flowsmith.scored_flows import judge_values, read_scored_flows
from lightning_modules.command_line.config_files import CONFIGS, ROOT

MINIATURE = ROOT / "miniature"
COLLECTION = MINIATURE / "data" / "collection"
WIDE, DENSE = COLLECTION / "scored_flows.parquet", COLLECTION / "dense.parquet"
JUDGES = {"clip_score", "aesthetic", "preference", "preference_held_out"}


def options_of(stage: str) -> dict[str, Any]:
    """Return the options of a config's callbacks by class."""
    callbacks = yaml.safe_load((CONFIGS / f"{stage}.yaml").read_text())["trainer"]["callbacks"]
    return {entry["class_path"]: entry.get("init_args", {}) for entry in callbacks}


def judges_of(stage: str) -> list[Judge]:
    """Return those judges of a config that have weights."""
    judges = []
    for entry in options_of(stage)["ImageMetrics"]["judges"]:
        given = {name: value for name, value in entry["init_args"].items() if name != "checker"}
        if given:
            paths = {name: ROOT / v if (ROOT / v).exists() else v for name, v in given.items()}
            judges.append(getattr(metrics, entry["class_path"].rpartition(".")[2])(**paths))
    return judges


@pytest.mark.parametrize(("stage", "path"), [("collect", WIDE), ("dense", DENSE), ("evaluate", DENSE)])
def test_collection_is_of_the_shipped_models_and_judges(stage: str, path: Path) -> None:
    judges = judges_of(stage)
    assert {judge.name for judge in judges} == JUDGES
    executor = Executor(ROOT / options_of(stage)["FlowExecution"]["models"])
    rows = read_scored_flows(path)
    assert set(rows["weights"].to_pylist()) == {hash_of_weights(executor.weight_hashes, judges)}
    assert set(rows["renderer"].to_pylist()) == {executor.version}
    assert set(judge_values(rows)) == {*JUDGES, "geneval"}


def test_the_wide_part_is_wide() -> None:
    rows = read_scored_flows(WIDE)
    assert len(rows) >= 8000
    assert len(set(rows["flow_key"].to_pylist())) >= 300
    base = load_corpus(
        MINIATURE / "flows", Domain.from_yaml(MINIATURE / "domain.yaml").restrict(Schema.core())
    )
    assert set(rows["base_flow"].to_pylist()) == set(base)
    prompts = {prompt.id: prompt.text for prompt in read_prompts(MINIATURE / "data" / "prompts.jsonl")}
    assert {(row["prompt_id"], row["prompt"]) for row in rows.to_pylist()} <= prompts.items()
    assert set(rows["split"].to_pylist()) == {"train", "validation"}
    assert rows["status"].to_pylist().count("failed") <= len(rows) // 100


def test_the_dense_block_is_of_the_dense_flows_and_of_prompts_that_no_stage_trains_on() -> None:
    rows = read_scored_flows(DENSE)
    block = dense_block(rows)
    domain = Domain.from_yaml(MINIATURE / "domain.yaml")
    flows = load_corpus(MINIATURE / "dense", domain.restrict(Schema.core()))
    assert {block.names[key]: key for key in block.flows} == {name: flow.key for name, flow in flows.items()}
    assert block.scores.shape[0] >= 100
    assert block.scores.shape[1:] == (50, 4)
    assert set(rows["split"].to_pylist()) == {"test"}
    assert block.failed.mean() <= 0.01


def test_both_are_small() -> None:
    assert sum(file.stat().st_size for file in COLLECTION.iterdir()) <= 6e6
