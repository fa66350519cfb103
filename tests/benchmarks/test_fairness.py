"""The script on small blocks: verdicts on worlds with and without interaction, and what it says without a measure."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.fairness import labels_of, main
from flowsmith.evaluation.one_component import schema_of
from flowsmith.flows import Flow
from flowsmith.prompts import Prompt, write_prompts
from flowsmith.scored_flows import to_table, write_scored_flows
from tests.evaluation.test_one_component import plain, with_lora, with_second_pass
from tests.evaluation.worlds import Array, rows_of, world

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
STYLES = ("poster", "pencil", "ink")
PROMPTS = [
    Prompt(f"p{i:02}", f"prompt {i}", "test", TASKS[i % 6], {"groups": [{"shape": "star", "count": 1 + i % 2}],
           "relation": None, "style": STYLES[i // 6 % 3]}) for i in range(48)
]  # fmt: skip
GRAPHS = [
    plain(), plain(sample__steps=8), plain(sample__steps=30), plain(sample__cfg=1.0), plain(neg__text="blurry"),
    plain(ckpt__ckpt_name="pencil"), with_lora(plain()), with_lora(plain(), 0.5), with_second_pass(plain()),
    plain(sample__scheduler="karras"), plain(empty__width=96), plain(sample__sampler_name="heun"),
]  # fmt: skip
SCHEMA = schema_of({str(i): json.dumps(graph) for i, graph in enumerate(GRAPHS)})
FLOWS = [Flow.from_template(graph, SCHEMA) for graph in GRAPHS]


def measure(folder: Path, scores: Array, *more: str, failed: str = "") -> tuple[dict[str, Any], int]:
    """Write a block, run the script over it, return what it wrote and its exit code."""
    rows = rows_of(scores, FLOWS, [p.id for p in PROMPTS], [p.task for p in PROMPTS], failed)
    write_scored_flows(folder / "dense.parquet", to_table(random.Random(0).sample(rows, len(rows))))
    write_prompts(folder / "prompts.jsonl", PROMPTS)
    files = ["--dense", str(folder / "dense.parquet"), "--prompts", str(folder / "prompts.jsonl")]
    code = main([*files, "--out", str(folder / "out" / "fairness.json"), "--resamples", "200", *more])
    results: dict[str, Any] = json.loads((folder / "out" / "fairness.json").read_text())
    return results, code


def test_a_fair_world_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, _ = world(1, (48, 12, 4), interaction=1.0, noise=0.5)
    results, code = measure(tmp_path, scores, failed="p07/3/2")
    assert code == 0
    sd = results["block"]["score_sd"]
    assert results["block"] == {
        "prompts": 48, "flows": 12, "seeds": 4, "failed_images": 1, "score_sd": pytest.approx(scores.std(), rel=0.02)
    }  # fmt: skip
    assert results["oracle_gap"]["value"] == pytest.approx(
        1.0 * 1.63 * (1 - 48**-0.5) / np.sqrt(1.125) / sd, rel=0.15
    )
    assert results["oracle_gap"]["ci95"][0] > 0.3
    assert results["top_flow_share"] < 0.25
    assert results["category_share"] < 0.5
    assert set(results["categories"]) == {"task", "style", "count"}
    assert {"prompt", "flow", "interaction", "seed"} < results["variance"].keys()
    assert results["variance"]["interaction"] == pytest.approx(1 / sd**2, rel=0.15)
    assert 0.8 < results["judge_noise_ceiling"] < 1
    passes = {name: verdict["passes"] for name, verdict in results["verdicts"].items()}
    assert all(passes[name] for name in ("oracle gap", "category share", "top flow share"))
    for kind in (
        "checkpoint",
        "lora",
        "lora_strength",
        "second_pass",
        "steps",
        "guidance",
        "negative",
        "scheduler",
    ):
        assert results["component_effect"][kind] > 0.4
        assert passes[f"effect of {kind}"]
    assert len(results["components"]["steps"]["pairs"]) == 3
    # What the block has no pair for is no effect that was shown.
    assert results["component_effect"]["sharpen"] is None
    assert not passes["effect of sharpen"]
    told = capsys.readouterr().out
    assert "effect of sharpen" in told
    assert "no two flows differ in it alone" in told
    assert "LoraLoader(ink.safetensors, 1.0, 0.5)" in told


def test_an_unfair_world_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, _ = world(2, (48, 12, 4))
    scores[:, 5] += 1.0
    results, code = measure(tmp_path, scores, "--strict")
    assert code == 1
    assert not any(verdict["passes"] for verdict in list(results["verdicts"].values())[:3])
    assert results["top_flow_share"] > 0.8
    assert results["category_share"] is None  # of no gap
    passes = {name: verdict["passes"] for name, verdict in results["verdicts"].items()}
    assert passes["effect of checkpoint"]  # the fifth flow's: the same for all prompts, so it does not vary
    assert results["components"]["checkpoint"]["varies"]["ci95"][0] < 0
    assert not passes["effect of steps"]
    assert "FAIL" in capsys.readouterr().out


def test_a_world_that_style_decides_fails_by_that(tmp_path: Path) -> None:
    scores, _ = world(3, (48, 12, 4), noise=0.5)
    scores[np.arange(48), np.arange(48) // 6 % 3] += 1.5
    results, _ = measure(tmp_path, scores)
    assert results["category_share"] == results["categories"]["style"]["share"] > 0.9
    assert results["verdicts"]["oracle gap"]["passes"]
    assert not results["verdicts"]["category share"]["passes"]


def test_what_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fairness.json"
    assert main(["--dense", str(tmp_path / "none.parquet"), "--out", str(out)]) == 2
    assert "python evaluate.py --config dense.yaml" in capsys.readouterr().err
    rows = rows_of(world(0, (48, 12, 4))[0], FLOWS, [p.id for p in PROMPTS], [p.task for p in PROMPTS])
    write_scored_flows(tmp_path / "dense.parquet", to_table(rows[1:]))
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS[:40])
    files = ["--dense", str(tmp_path / "dense.parquet"), "--prompts", str(tmp_path / "prompts.jsonl")]
    assert main([*files, "--out", str(out)]) == 2
    assert f"missing: prompt p00, flow {FLOWS[0].key}, seed 0" in capsys.readouterr().err
    write_scored_flows(tmp_path / "dense.parquet", to_table(rows))
    assert main([*files, "--out", str(out)]) == 2
    assert "8 prompts of the block are not in it, p40 the first" in capsys.readouterr().err
    assert not out.exists()


def test_labels_are_the_task_and_each_fact() -> None:
    facts = {
        "groups": [
            {"shape": "star", "color": "red", "count": 2},
            {"shape": "disc", "color": None, "count": 1},
        ],
        "relation": "left",
        "texture": "hatched",
    }
    assert labels_of(replace(PROMPTS[0], facts=facts)) == {
        "task": "single_object", "groups": 2, "shape": "disc+star", "color": "None+red", "count": 3,
        "relation": "left", "texture": "hatched",
    }  # fmt: skip
    assert labels_of(Prompt("a", "b")) == {"task": "", "groups": 0}
