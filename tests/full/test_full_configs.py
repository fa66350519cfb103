"""The configs of full scale, run as they are on tiny random models of the architectures that they name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from flowsmith.policy import generate, load_pair
from flowsmith.prompts import Prompt, write_prompts
from flowsmith.scored_flows import to_table, write_scored_flows
from tests.full.models import LLAMA, MODERNBERT, QWEN, write_model
from tests.processes import ended, group, train
from tests.rewards.world import DOMAIN, scenes, scored_flows

CPU = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.devices")
TWO = ("--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1")
CYCLES = ("--data.cycles", "2", "--data.batch_prompts", "8", "--trainer.max_epochs", "1")


def write_world(folder: Path) -> Path:
    """Write what the configs of full scale expect to find: a collection, a domain, prompts, models."""
    write_scored_flows(
        folder / "runs" / "full-collect" / "export" / "scored_flows.parquet",
        to_table(scored_flows(prompts=18, flows_per_prompt=6, flows=60)),
    )
    shutil.copy(DOMAIN, folder / "domain.yaml")
    texts = [scene.text for scene in scenes(18)]
    write_prompts(
        folder / "prompts.jsonl", [Prompt(f"p{number}", text, "train") for number, text in enumerate(texts)]
    )
    for name in (QWEN, LLAMA, MODERNBERT):
        write_model(folder, name, texts)
    return folder


def run(folder: Path, *words: str, processes: int = 1) -> str:
    """Run a config; return what it printed."""
    logs = [folder / f"{rank}.log" for rank in range(processes)]
    for log in logs:
        log.unlink(missing_ok=True)
    environments: list[dict[str, str]] = group(processes) if processes > 1 else [{}]
    ranks = [train(folder, *words, *CPU, str(processes), environment=each) for each in environments]
    codes = [ended(rank, 600) for rank in ranks]
    told = "\n".join(log.read_text() for log in logs)
    assert codes == [0] * processes, told
    return told


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]


def trained(folder: Path, name: str) -> dict[str, Tensor]:
    checkpoint = torch.load(folder / "runs" / name / "checkpoints" / "last.ckpt", weights_only=False)
    tensors: dict[str, Tensor] = checkpoint["state_dict"]
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize(("base", "processes"), [(QWEN, 1), (LLAMA, 2)])
def test_reward_vocabulary_and_grpo_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, processes: int
) -> None:
    folder = write_world(tmp_path)
    run(folder, "--config", "full/reward.yaml", *TWO, processes=processes)
    run(folder, "--config", "full/vocabulary.yaml", "--model.base", base, *TWO, processes=processes)
    told = run(folder, "--config", "full/grpo.yaml", *CYCLES, processes=processes)
    assert f"GRPOModule begins; {processes} process" in told
    logged = [row for row in rows(folder, "full-grpo") if "reward" in row]
    assert [row["step"] for row in logged] == [0, 1]
    assert all(row["grad_norm"] > 0 and abs(row["reward"]) < 1e3 for row in logged)

    started = yaml.safe_load((folder / "runs/full-grpo/starts/000.yaml").read_text())
    assert started["trainer"]["precision"] == "bf16-mixed"
    assert started["model"]["init_args"]["gradient_checkpointing"] is True

    # Adapters train in single precision beside a base of half; the vocabulary adapter and all rows stay.
    adapter = trained(folder, "full-grpo")
    assert adapter
    assert all(value.dtype == torch.float32 for value in adapter.values())
    exported = [load_file(path / "adapter_model.safetensors") for path in (
        folder / "runs/full-vocabulary/export", folder / "runs/full-grpo/export/reference",
        folder / "runs/full-grpo/export/policy",
    )]  # fmt: skip
    before, reference, policy = exported
    assert any("token" in name for name in before)
    assert {value.dtype for value in before.values()} == {torch.float32}  # half would lose most steps of 2e-4
    assert all(torch.equal(before[name], reference[name]) for name in before.keys() | reference.keys())
    moved = {name for name in before if not torch.equal(before[name], policy[name])}
    assert moved
    assert not [name for name in moved if "lora_" not in name]
    assert any("lora_B" in name for name in moved)

    monkeypatch.chdir(folder)  # where the hub ids are folders
    pair = load_pair(folder / "runs/full-grpo/export/policy", folder / "runs/full-grpo/export/reference")
    assert (
        type(pair[0].causal).__name__
        == json.loads((folder / base / "config.json").read_text())["architectures"][0]
    )
    flows = generate(pair[0], ["two red stars"], 2, seed=0, reference=pair[1], guidance=2.0)
    assert len(flows[0]) == 2
