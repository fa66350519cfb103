"""The script and what it measures with, on the smallest of worlds."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import execution
from flowsmith.evaluation.throughput.graphs import text_to_image_flow
from flowsmith.evaluation.throughput.kills import survive_kills
from flowsmith.evaluation.throughput.overhead import overhead
from flowsmith.evaluation.throughput.pipelines import pipeline_tasks, render_with_pipelines
from flowsmith.evaluation.throughput.plain_way import against_the_plain_way, equal_pixel_share, mixed_tasks
from flowsmith.evaluation.throughput.sdxl import against_sdxl_pipeline
from flowsmith.evaluation.throughput.servers import against_a_server, server_tasks
from flowsmith.execution import Executor, RenderTask
from flowsmith.flows import Domain, Flow, Schema
from flowsmith.prompts import Prompt, read_prompts
from tests.tiny_world import make_tiny_models

ROOT = Path(__file__).parents[2]
MINIATURE = ROOT / "miniature"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_models(tmp_path_factory.mktemp("models"))


def task(number: int, checkpoint: str = "tiny_a", **how: Any) -> RenderTask:
    flow = text_to_image_flow(checkpoint, 32, how.pop("steps", 2), how.pop("cfg", 3.0), **how)
    return RenderTask(str(number), flow, f"{number} red stars", number)


def test_share_of_equal_pixels_by_hand() -> None:
    def image(*values: int) -> Tensor:
        return torch.tensor(values, dtype=torch.uint8).view(1, 1, -1)

    one = {"a": image(0, 255, 100, 7), "b": image(1, 2, 3, 4), "c": image(5, 5)}
    other = {"a": image(1, 0, 98, 7), "b": image(1, 2, 3, 4), "d": image(9, 9, 9, 9, 9, 9)}
    # a: two of four; b: all four; c and d: 2 + 6 values that only one has.
    assert equal_pixel_share(one, other) == (2 + 4) / (4 + 4 + 2 + 6)
    assert equal_pixel_share({"a": image(1, 2)}, {"a": image(1, 2, 3)}) == 0.0
    assert equal_pixel_share({}, {}) == 0.0


def test_mixed_tasks_are_every_flow_for_each_prompt() -> None:
    prompts = read_prompts(MINIATURE / "data" / "prompts.jsonl", "train")
    tasks = mixed_tasks(MINIATURE / "flows", MINIATURE / "domain.yaml", prompts, 120)
    assert len({one.sample_id for one in tasks}) == 120
    assert [one.prompt for one in tasks] == [p.text for p in prompts[:3] for _ in range(50)][:120]
    assert len({one.flow.key for one in tasks[:50]}) == 50


def test_executor_and_plain_way_render_the_same(models: Path) -> None:
    tasks = [task(k, ("tiny_a", "tiny_b")[k % 2], steps=1 + k % 3) for k in range(6)]
    found = against_the_plain_way(tasks, models, 8, torch.float32)
    assert (found["tasks"], found["flows"]) == (6, 6)
    assert found["plain_equal_pixel_share"] >= 0.999
    for name in ("plain_ratio", "plain_cpu_ratio"):
        assert found[name] > 0
        assert found[f"{name}_without_reload"] > 0


def test_overhead_is_measured_on_equal_work(models: Path) -> None:
    found = overhead(models, "tiny_a", rows=2, repeats=1)  # it compares the pictures itself
    assert found["overhead_rows"] == 2
    assert found["overhead_share"] > -1
    assert found["overhead_outside_nodes_share"] > 0


def test_pipelines_take_what_they_can(models: Path) -> None:
    schema = Domain.from_yaml(MINIATURE / "domain.yaml").restrict(Schema.core())
    lora = Flow.from_template(json.loads((MINIATURE / "flows" / "poster.json").read_text()), schema)
    unfit = [RenderTask("lora", lora, "a star", 1), task(3, sampler="dpmpp_2m_sde")]
    fit = [task(1), task(2, "tiny_b", sampler="heun", negative="blue")]
    assert pipeline_tasks([*fit, *unfit]) == fit
    assert render_with_pipelines(fit, models).wall > 0


@pytest.mark.slow
def test_sdxl_layout_renders_both_ways(tmp_path: Path) -> None:
    found = against_sdxl_pipeline(tmp_path, "cpu", samples=2, side=64, small=True)
    assert found["cuda_pipeline_ratio"] == pytest.approx(
        found["cuda_images_per_second"] / found["cuda_pipeline_images_per_second"]
    )
    assert found["cuda_matrix_rate_share"] > 0


def test_tasks_for_a_server_share_what_they_should() -> None:
    alike = list(server_tasks("tiny_a", 50))
    unlike = list(server_tasks("tiny_a", 50, unlike=True))
    assert [len({getattr(one, name) for one in alike}) for name in ("prompt", "seed")] == [5, 5]
    assert len({one.flow.key for one in alike}) == 10
    for name in ("prompt", "seed"):
        assert len({getattr(one, name) for one in unlike}) == 50
    assert len({one.flow.key for one in unlike}) == 50


def test_a_server_is_compared_on_the_same_tasks(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's place is taken by a second executor."""
    monkeypatch.setattr(
        "flowsmith.evaluation.throughput.servers.ComfyUIExecutor", lambda urls: Executor(models, batch_size=1)
    )
    found = against_a_server("http://127.0.0.1:1", models, "tiny_a", tasks=10)
    for name in ("comfyui", "comfyui_uncached"):
        assert found[f"{name}_ratio"] > 0
        assert found[f"{name}_equal_pixel_share"] >= 0.999


def test_the_script_keeps_what_it_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "execution.json"
    monkeypatch.delenv("FLOWSMITH_COMFYUI_URL", raising=False)
    monkeypatch.setitem(execution.PARTS, "overhead", lambda options: {"overhead_share": 0.01})
    assert execution.main(["--only", "overhead", "--out", str(out)]) == 0
    kills = {
        "kill_rows": 40, "kill_rows_expected": 40, "kill_rows_repeated": 0, "kill_images_equal": True, "kills": 2
    }  # fmt: skip
    monkeypatch.setitem(execution.PARTS, "kills", lambda options: kills)
    assert execution.main(["--only", "kills", "server", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["overhead_share"] == 0.01
    assert {name: found[name] for name in kills} == kills
    assert found["comfyui_ratio"] is None
    assert found["plain_ratio"] is None
    assert set(found["conditions"]) == {"overhead", "kills", "server"}
    assert "overhead_share" in capsys.readouterr().out
    for wrong in ({"kill_rows": 39}, {"kill_rows_repeated": 1}, {"kill_images_equal": False}):
        found_wrong = {**kills, **wrong}
        monkeypatch.setitem(execution.PARTS, "kills", partial(_found, found_wrong))
        assert execution.main(["--only", "kills", "--out", str(out)]) == 1


def _found(result: dict[str, Any], options: Any) -> dict[str, Any]:
    return result


@pytest.mark.slow
def test_a_run_survives_kills(tmp_path: Path) -> None:
    prompts = [Prompt(f"p{i}", f"{i} red stars", "train") for i in range(40)]
    found = survive_kills(tmp_path, ROOT / "evaluate.py", MINIATURE, prompts, 600, every=200)
    assert found["kills"] >= 2
    assert found["kill_rows"] == found["kill_rows_expected"] == 600
    assert found["kill_rows_repeated"] == 0
    assert found["kill_images_equal"]
    # A second start in the same folder finds all of it there.
    assert survive_kills(tmp_path, ROOT / "evaluate.py", MINIATURE, prompts, 600, every=200) == found
