"""The executor over its servers: checks before the first task, shares, duplicates, versions, the config's door."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser

from callbacks import FlowExecution, ImageMetrics, ScoredFlowWriter
from flowsmith.designers.protocol import image_seed
from flowsmith.execution import ExecutionError, RenderTask
from flowsmith.execution.comfyui import ComfyUIExecutor, ServerSetupError
from flowsmith.execution.comfyui.checks import ServerFacts, differences, used_by
from flowsmith.execution.comfyui.pool import Pool
from flowsmith.flows import Schema
from flowsmith.scored_flows import judge_values, read_scored_flows
from tests.callbacks.painting import PROMPTS, Grey, predict
from tests.execution.comfyui.fleet import Fleet, object_info, picture, pictures, tasks
from tests.flows_for_tests import some_flows

DUMP = object_info(some_flows(5))


def without(dump: dict[str, Any], target: str, value: str) -> dict[str, Any]:
    """Return a dump that lacks a choice."""
    name, _, key = target.partition(".")
    schema = Schema.from_object_info(dump)
    spec = next(spec for spec in schema.nodes[name].inputs if spec.name == key)
    return schema.restrict(choices={target: [c for c in spec.choices if c != value]}).to_object_info()


def first_checkpoint() -> str:
    return str(DUMP["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][1]["options"][0])


def test_servers_are_compared_before_the_first_task() -> None:
    wanted = [t for t in tasks(5) if first_checkpoint() in str(t.flow.to_template())]
    assert wanted
    with Fleet(2) as fleet:
        fleet.servers[1].dump = without(DUMP, "CheckpointLoaderSimple.ckpt_name", first_checkpoint())
        with pytest.raises(
            ServerSetupError, match=f"lacks '{first_checkpoint()}' of CheckpointLoaderSimple.ckpt_name"
        ):
            list(fleet.executor().render(wanted))
        assert [server.posted for server in fleet.servers] == [[], []]
        # What no flow uses is no hindrance.
        others = [t for t in tasks(5) if first_checkpoint() not in str(t.flow.to_template())]
        assert pictures(fleet.executor().render(others), others) == {}


def test_differences_name_the_server_and_what_to_do() -> None:
    facts = ServerFacts("http://a", "0.33.0", Schema.from_object_info(DUMP))
    graphs = [t.flow.to_comfyui("x", 0, facts.schema) for t in tasks(5)]
    used = used_by(graphs, facts.schema)
    assert differences([facts, replace(facts, name="http://b")], used) == []
    older = replace(facts, name="http://b", version="0.8.0")
    assert differences([facts, older], used) == ["http://b is ComfyUI 0.8.0, http://a is 0.33.0: update one"]
    bare = {name: node for name, node in facts.schema.nodes.items() if name != "VAEDecode"}
    assert differences([facts, replace(facts, name="http://b", schema=Schema(bare))], used) == [
        "http://b lacks the node VAEDecode: install it"
    ]
    decode = facts.schema.nodes["VAEDecode"]
    changed = Schema({**facts.schema.nodes, "VAEDecode": replace(decode, outputs=("LATENT",))})
    assert differences([facts, replace(facts, name="http://b", schema=changed)], used) == [
        "http://b and http://a have different versions of the node VAEDecode: update one"
    ]
    # None of them has it: the flow's own mistake.
    assert differences([replace(facts, schema=Schema(bare)), replace(facts, schema=Schema(bare))], used) == []


def test_what_no_server_has_fails_its_own_task_only() -> None:
    wanted = tasks(4)
    dump = without(DUMP, "CheckpointLoaderSimple.ckpt_name", first_checkpoint())
    lacking = {t.sample_id for t in wanted if first_checkpoint() in str(t.flow.to_template())}
    with Fleet(2, dump=dump) as fleet:
        errors = pictures(fleet.executor().render(wanted), wanted)
    assert errors.keys() == lacking
    assert all("value_not_in_list" in error for error in errors.values())


def test_a_server_that_is_not_there_or_no_comfyui_is_told_at_once() -> None:
    with Fleet(1) as fleet:
        url = fleet.servers[0].url
        fleet.servers[0].dump = {"x": []}
        with pytest.raises(ServerSetupError, match="is it a ComfyUI server"):
            _ = fleet.executor().version
    with pytest.raises(ServerSetupError, match=f"{url}: no answer from .* take it out of servers"):
        _ = ComfyUIExecutor([url], patience=0.5).version


def test_versions_and_weights_are_what_all_servers_share() -> None:
    with Fleet(2) as fleet:
        fleet.servers[1].dump = without(DUMP, "CheckpointLoaderSimple.ckpt_name", first_checkpoint())
        executor = fleet.executor()
        assert executor.version == "comfyui 0.33.0"
        names = executor.weight_hashes
        fleet.servers[1].version = "0.34.0"
        with pytest.raises(ServerSetupError, match=r"is ComfyUI 0\.34\.0, .* is 0\.33\.0"):
            _ = fleet.executor().version
    assert f"CheckpointLoaderSimple.ckpt_name/{first_checkpoint()}" not in names
    assert any(name.startswith("LoraLoader.lora_name/") for name in names)
    assert list(names) == sorted(names)


def test_delivery_is_by_file_where_a_server_lacks_the_node() -> None:
    wanted = tasks(2)
    with Fleet(2) as fleet:
        assert fleet.executor().delivery == "websocket"
        fleet.servers[1].dump = object_info(some_flows(5), websocket=False)
        assert fleet.executor().delivery == "view"
        assert pictures(fleet.executor().render(wanted), wanted) == {}
        assert sum(len(server.files) for server in fleet.servers) == 2
        with pytest.raises(ServerSetupError, match=r"has no node SaveImageWebsocket; .* delivery=view"):
            list(fleet.executor(delivery="websocket").render(wanted))


def test_equal_tasks_are_rendered_once_and_remembered_within_bounds() -> None:
    one, two = tasks(2)
    again = [replace(one, sample_id="again"), replace(one, sample_id="other seed", seed=99)]
    with Fleet(1) as fleet:
        (server,) = fleet.servers
        executor = fleet.executor(cache_bytes=1)  # the newest is always kept
        assert pictures(executor.render([one, *again]), [one, *again]) == {}
        assert len(server.posted) == 2
        results = {r.sample_id: r for r in executor.render([again[1], two])}
        assert len(server.posted) == 3
        results["other seed"].image.zero_()  # type: ignore[union-attr]  # one's own
        assert torch.equal(next(iter(executor.render([two]))).image, picture(two))  # type: ignore[arg-type]
        assert len(server.posted) == 3
        list(executor.render([one]))
        assert len(server.posted) == 4


def test_a_flow_that_cannot_be_written_out_is_its_own_failure() -> None:
    good, bad = tasks(2)
    with Fleet(1) as fleet:
        errors = {r.sample_id: r.error for r in fleet.executor().render([replace(bad, seed=-1), good])}
    assert errors["0"] is None
    assert "seed=-1" in str(errors["1"])


def test_servers_keep_to_the_models_that_they_have_loaded() -> None:
    wanted = tasks(40)
    with Fleet(2, seconds=0.02) as fleet:
        assert pictures(fleet.executor().render(wanted), wanted) == {}
        loads = 0
        for server in fleet.servers:
            files = [sorted(_files(graph)) for graph in server.posted]
            loads += 1 + sum(a != b for a, b in pairwise(files))
    kinds = len({tuple(sorted(_files(t.flow.to_template()))) for t in wanted})
    assert loads <= kinds + 4  # in turn they would be forty


def _files(graph: dict[str, Any]) -> set[str]:
    values = (value for node in graph.values() for value in node["inputs"].values())
    return {value for value in values if isinstance(value, str) and value.endswith(".safetensors")}


def test_processes_share_the_servers_out() -> None:
    names = [f"http://host:{port}" for port in range(5)]
    shares = []
    for rank in range(2):
        executor = ComfyUIExecutor(names)
        executor.take_share(rank, 2)
        shares.append([str(url).rstrip("/") for url in executor._share])
    assert shares == [names[::2], names[1::2]]
    with pytest.raises(ServerSetupError, match="too few for 6 processes"):
        ComfyUIExecutor(names).take_share(0, 6)


@pytest.mark.parametrize(
    ("servers", "options"),
    [([], {}), (["http://a", "http://a/"], {}), (["a:1"], {}), (["http://a"], {"timeout": 0.0})],
)
def test_settings_that_cannot_work_are_refused(servers: list[str], options: dict[str, float]) -> None:
    with pytest.raises(ServerSetupError, match=r"servers|timeout"):
        ComfyUIExecutor(servers, **options)  # type: ignore[arg-type]


def test_a_config_chooses_the_executor(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "rendering:\n  executor:\n    class_path: flowsmith.execution.comfyui.ComfyUIExecutor\n"
        "    init_args:\n      servers: [http://host:8188]\n      timeout: 60\n"
    )
    parser = ArgumentParser()
    parser.add_class_arguments(FlowExecution, "rendering")
    parser.add_argument("--config", action="config")
    made = parser.instantiate(parser.parse_args(["--config", str(config)]))
    assert isinstance(made.rendering.executor, ComfyUIExecutor)
    with pytest.raises(ExecutionError, match="give one"):
        FlowExecution()
    with pytest.raises(ExecutionError, match="give one"):
        FlowExecution("models", executor=made.rendering.executor)


def test_a_stage_renders_on_servers_and_its_rows_say_so(tmp_path: Path) -> None:
    with Fleet(2) as fleet:
        rendering = FlowExecution(executor=fleet.executor(timeout=30.0, patience=30.0))
        predict(tmp_path, [rendering, ImageMetrics([Grey("grey")]), ScoredFlowWriter()])
    table = read_scored_flows(tmp_path / "rows")
    rows, judged = table.to_pylist(), judge_values(table)["grey"]
    assert {(row["status"], row["renderer"]) for row in rows} == {("ok", "comfyui 0.33.0")}
    greys = {}
    for name, flow in zip(("a", "b"), some_flows(2), strict=True):
        for prompt in PROMPTS:
            for sample in range(2):
                seed = image_seed(prompt, sample, 0)
                shown = picture(RenderTask("", flow, prompt.text, seed))
                greys[f"{name}/{prompt.id}/{sample}"] = float(shown.float().mean())
    seen = {row["sample_id"]: float(grey) for row, grey in zip(rows, judged, strict=True)}
    assert seen == pytest.approx(greys)


def test_every_process_renders_on_its_share() -> None:
    executor = ComfyUIExecutor(["http://a", "http://b", "http://c"])
    trainer: Any = SimpleNamespace(global_rank=1, world_size=2)
    module: Any = None
    FlowExecution(executor=executor).setup(trainer, module, "predict")
    assert [url.host for url in executor._share] == ["b"]


def test_a_mistake_of_ours_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "_choose", lambda *rest: 1 / 0)
    with Fleet(2) as fleet, pytest.raises(ZeroDivisionError):
        list(fleet.executor().render([RenderTask("a", some_flows(1)[0], "task 0", 0)]))
