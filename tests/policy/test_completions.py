"""What a cycle learned from, as a table and as text."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import torch

from flowsmith.flows import Flow
from flowsmith.policy.completions import Completions, described, write_table
from tests.policy.group_world import groups_of
from tests.policy.world import PROMPTS, small_codec, small_policy

NAN = float("nan")


def learned() -> Completions:
    groups = groups_of(small_policy(), PROMPTS[:2], 2, cycle=4, rewards=[(1.0, -2.0), (NAN, 0.5)])
    return Completions(groups, torch.tensor([[0.7, -0.7], [0.0, 0.0]]))


def test_the_table_has_a_row_a_sample_and_flows_that_can_be_read_back(tmp_path: Path) -> None:
    completions = learned()
    write_table(tmp_path / "cycle.parquet", completions.table(small_codec(), 6))
    rows = pq.read_table(tmp_path / "cycle.parquet").to_pylist()
    assert [(row["prompt"], row["sample"]) for row in rows] == [
        (PROMPTS[p], s) for p in range(2) for s in range(2)
    ]
    assert [row["reward"] for row in rows] == [1.0, -2.0, None, 0.5]
    assert [row["mean"] for row in rows] == [1.0, -2.0, None, 0.5]
    assert [round(row["advantage"], 3) for row in rows] == [0.7, -0.7, 0.0, 0.0]
    assert {(row["cycle"], row["sampled_in"], row["attempt"]) for row in rows} == {(6, 4, 0)}
    tokens = [tokens for group in completions.groups for tokens in group.tokens]
    for row, expected in zip(rows, tokens, strict=True):
        flow = Flow.from_template(json.loads(row["flow"]), small_codec().schema)
        assert flow == small_codec().decode(expected)
        assert (flow.key, len(expected)) == (row["flow_key"], row["tokens"])
    assert [file.name for file in tmp_path.iterdir()] == ["cycle.parquet"]


def test_the_text_shows_the_best_first_with_its_worth() -> None:
    text = learned().text(small_codec(), prompts=1, samples=2)
    parts = text.split("\n\n")
    assert parts[0] == f"**{PROMPTS[0]}**"
    assert parts[1].startswith("reward +1.00 ± 0.00, advantage +0.70, ")
    assert parts[3].startswith("reward -2.00 ± 0.00, advantage -0.70, ")
    assert all(line.startswith("    ") for line in parts[2].splitlines())
    assert PROMPTS[1] not in text
    assert "reward no number" in learned().text(small_codec(), prompts=2, samples=2)


def test_a_flow_is_a_line_a_node_with_its_links() -> None:
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "mini_base"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}", "clip": ["1", 1]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0], "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal",
                "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "denoise": 1.0,
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "flowsmith"}},
    }  # fmt: skip
    assert described(Flow.from_template(graph, small_codec().schema)) == [
        '1 CheckpointLoaderSimple ckpt_name="mini_base"',
        '2 CLIPTextEncode text="{prompt}" clip=1.1',
        "3 EmptyLatentImage width=64 height=64 batch_size=1",
        '4 KSampler model=1 steps=4 cfg=3.0 sampler_name="euler" scheduler="normal" positive=2 negative=2 '
        "latent_image=3 denoise=1.0",
        "5 VAEDecode samples=4 vae=1.2",
        '6 SaveImage images=5 filename_prefix="flowsmith"',
    ]
