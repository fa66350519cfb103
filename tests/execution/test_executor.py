import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowsmith.execution import Executor, ModelLibrary, RenderResult, RenderTask
from flowsmith.execution.nodes import NODES, NodeType, Row
from flowsmith.flows import Flow, Schema
from tests.execution.running import whole
from tests.tiny_world import tiny_graph

SCHEMA = Schema.core().restrict(
    choices={
        "CheckpointLoaderSimple.ckpt_name": ["tiny_a", "tiny_b", "merged", "../escape", "gone"],
        "LoraLoader.lora_name": ["tiny.safetensors"],
    }
)


def flow(**changes: Any) -> Flow:
    return Flow.from_template(tiny_graph(**{"positive": "{prompt}", **changes}), SCHEMA)


def hires_flow(**second: Any) -> Flow:
    """The default flow with a second pass on its upscaled latents."""
    graph = tiny_graph(positive="{prompt}")
    graph["8"] = {
        "class_type": "LatentUpscaleBy",
        "inputs": {"samples": ["5", 0], "upscale_method": "bislerp", "scale_by": 1.5},
    }
    inputs = {**graph["5"]["inputs"], "latent_image": ["8", 0], "denoise": 0.5, **second}
    graph["9"] = {"class_type": "KSampler", "inputs": inputs}
    graph["6"]["inputs"]["samples"] = ["9", 0]
    return Flow.from_template(graph, SCHEMA)


def lora_flow(strength: float) -> Flow:
    graph = tiny_graph(positive="{prompt}")
    inputs: dict[str, Any] = {"model": ["1", 0], "clip": ["1", 1], "lora_name": "tiny.safetensors"}
    inputs |= {"strength_model": strength, "strength_clip": strength}
    graph["8"] = {"class_type": "LoraLoader", "inputs": inputs}
    graph["5"]["inputs"]["model"] = ["8", 0]
    graph["2"]["inputs"]["clip"] = graph["3"]["inputs"]["clip"] = ["8", 1]
    return Flow.from_template(graph, SCHEMA)


@pytest.fixture
def executor(models: Path) -> Executor:
    return Executor(models, SCHEMA, batch_size=4)


def tasks(of: Flow, n: int = 1, prompt: str = "red star {}") -> list[RenderTask]:
    return [RenderTask(f"{of.key[:4]}-{k}", of, prompt.format(k), 100 + k) for k in range(n)]


def images(results: Sequence[RenderResult] | Iterator[RenderResult]) -> dict[str, Tensor]:
    found = {}
    for result in results:
        assert result.error is None
        assert result.image is not None
        found[result.sample_id] = result.image
    return found


class Runs:
    """Counts what nodes were run on, batch by batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[str, list[int]] = {}
        for name, node in NODES.items():
            monkeypatch.setitem(NODES, name, self._counting(node))

    def _counting(self, node: NodeType) -> NodeType:
        def run(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
            self.rows.setdefault(node.name, []).append(len(rows))
            return node.run(rows, library)

        return NodeType(node.name, run, node.group, node.order, node.output)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc"])
def test_image_alone_equals_image_in_a_batch(models: Path, sampler: str) -> None:
    wanted = [*tasks(flow(sampler_name=sampler), 5), *tasks(hires_flow(sampler_name=sampler), 3)]
    together = images(Executor(models, SCHEMA, batch_size=8).render(wanted))
    assert len(together) == 8
    for task in wanted[::3]:
        alone = images(Executor(models, SCHEMA, batch_size=1).render([task]))[task.sample_id]
        apart = (alone.int() - together[task.sample_id].int()).abs()
        assert float((apart <= 1).float().mean()) >= 0.999
    different = together[wanted[0].sample_id] != together[wanted[1].sample_id]
    assert float(different.float().mean()) > 0.5  # so the comparison is not of equal pictures


def check_by_hand(models: Path, executor: Executor, prompt: str, seed: int) -> None:
    """Run the whole default flow once more, written out with diffusers' networks and the formulas."""
    got = images(executor.render([RenderTask("x", flow(steps=2, cfg=2.0), prompt, seed)]))["x"]
    model, encoder, vae = whole(ModelLibrary(models).checkpoint("tiny_a"))
    with torch.no_grad():
        positive, negative = (encoding.states for encoding in encoder.encode([prompt, ""]))
        s0, s1 = model.table.maximum, model.table.minimum
        x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) * (1 + s0**2) ** 0.5
        for sigma, target, step in ((s0, s1, 999), (s1, 0.0, 0)):
            seen = x / (sigma**2 + 1) ** 0.5
            noises = [model.network(seen, step, text[None]).sample for text in (positive, negative)]
            noise = noises[1] + 2.0 * (noises[0] - noises[1])
            x = x + noise * (target - sigma)
        picture = (vae.model.decode(x / 0.5).sample[0] / 2 + 0.5).clamp(0, 1)
    apart = (got.int() - (picture * 255).to(torch.uint8).int()).abs()
    assert int(apart.max()) <= 1
    assert got.float().std() > 10


def test_flow_by_hand(models: Path, executor: Executor) -> None:
    check_by_hand(models, executor, "red", 11)


def test_second_sampling_node_uses_the_next_seed(executor: Executor) -> None:
    """A first pass with denoise 0 is nothing, so the second one's noise must be that of seed + 1."""
    graph = tiny_graph(positive="{prompt}", denoise=0.0)
    inputs = {**graph["5"]["inputs"], "latent_image": ["5", 0], "denoise": 1.0}
    graph["8"] = {"class_type": "KSampler", "inputs": inputs}
    graph["6"]["inputs"]["samples"] = ["8", 0]
    twice = Flow.from_template(graph, SCHEMA)
    got = images(executor.render([RenderTask("two", twice, "red", 7), RenderTask("one", flow(), "red", 8)]))
    assert torch.equal(got["two"], got["one"])


def test_nothing_is_computed_twice(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch)
    same_start = [RenderTask(f"plain-{k}", flow(), "a star", k) for k in range(4)]
    images(
        executor.render(
            [*same_start, *(RenderTask(f"again-{k}", hires_flow(), "a star", k) for k in range(4))]
        )
    )
    assert runs.rows["KSampler"] == [4, 4]  # the first pass once for both flows, then the second one
    assert runs.rows["CLIPTextEncode"] == [2]  # "a star" and ""
    assert runs.rows["CheckpointLoaderSimple"] == [1]
    runs.rows.clear()
    images(executor.render(same_start))
    assert runs.rows == {}  # remembered from before


def test_unlike_flows_are_sampled_together_where_they_can(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(monkeypatch)
    unlike = [flow(cfg=2.0), flow(cfg=7.0), flow(negative="blue"), flow(negative="a (b:1.5)")]
    images(executor.render([task for one in unlike for task in tasks(one)]))
    assert runs.rows["KSampler"] == [4]
    runs.rows.clear()
    unlike = [
        flow(cfg=1.0),
        flow(steps=3),
        flow(sampler_name="heun"),
        flow(denoise=0.5),
        flow(width=32),
        lora_flow(1.0),
    ]
    images(executor.render([task for one in unlike for task in tasks(one)]))
    assert runs.rows["KSampler"] == [4, 1, 1]  # another size is another batch, and so are other weights


def test_rows_of_unlike_ways_render_as_they_do_alone(models: Path) -> None:
    unlike = [
        flow(steps=2, sampler_name="dpmpp_2m_sde", scheduler="karras"), flow(steps=9, sampler_name="uni_pc", cfg=1.0),
        flow(steps=5, sampler_name="euler_ancestral"), flow(steps=5, denoise=0.6, negative="blue " * 40), flow(steps=9),
    ]  # fmt: skip
    wanted = [RenderTask(str(k), one, f"{k} stars", k) for k, one in enumerate(unlike)]
    together = Executor(models, SCHEMA, batch_size=8)
    got = images(together.render(wanted))
    for task in wanted:
        alone = images(Executor(models, SCHEMA).render([task]))[task.sample_id]
        assert float(((alone.int() - got[task.sample_id].int()).abs() <= 1).float().mean()) >= 0.999


def test_of_a_large_group_rows_of_like_work_go_together(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, batches = NODES["KSampler"], list[list[int]]()

    def run(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
        batches.append([row["steps"] for row in rows])
        return node.run(rows, library)

    monkeypatch.setitem(NODES, "KSampler", replace(node, run=run))
    wanted = [task for steps in (1, 3, 2, 3, 1) for task in tasks(flow(steps=steps, cfg=1.5 + steps))]
    images(Executor(models, SCHEMA, batch_size=2).render(dict.fromkeys(wanted)))
    assert sorted(batches) == [[1, 2], [3]]
    unguided = [task for steps in (4, 1, 2, 3) for task in tasks(flow(steps=steps, cfg=1.0 + (steps == 1)))]
    batches.clear()
    images(Executor(models, SCHEMA, batch_size=2).render(unguided))
    assert sorted(map(sorted, batches)) == [[1, 2], [3, 4]]  # a guided step takes as long as two


def test_batches_follow_the_order_of_tasks(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are the same in every process, whatever Python hashes texts to."""
    node, batches = NODES["KSampler"], list[list[int]]()

    def run(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
        batches.append([row["seed"] for row in rows])
        return node.run(rows, library)

    monkeypatch.setitem(NODES, "KSampler", NodeType(node.name, run, node.group, node.order))
    results = list(Executor(models, SCHEMA, batch_size=4).render(tasks(flow(steps=1), 10)))
    assert batches == [[100, 101, 102, 103], [104, 105, 106, 107], [108, 109]]
    assert [result.sample_id for result in results] == [task.sample_id for task in tasks(flow(steps=1), 10)]


def test_memory_of_results_is_bounded(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Executor(models, SCHEMA, batch_size=4, max_result_bytes=20_000)
    images(executor.render(tasks(flow(), 8)))
    assert executor._interpreter._memory.bytes <= max(20_000, 64 * 64 * 3 * 5)  # at most, the newest picture


def merged_by_hand(root: Path, strength: float) -> None:
    """Write checkpoint "merged": tiny_a with strength x alpha / rank x up @ down added to each layer of the LoRA."""
    folder = shutil.copytree(root / "checkpoints" / "tiny_a", root / "checkpoints" / "merged")
    lora = load_file(root / "loras" / "tiny.safetensors")
    for prefix, part in (("lora_unet_", "unet"), ("lora_te_text_model_", "text_encoder")):
        (file,) = (folder / part).glob("*.safetensors")
        weights, merged = load_file(file), 0
        for name, weight in weights.items():
            place = prefix + name.removeprefix("text_model.").removesuffix(".weight").replace(".", "_")
            if f"{place}.alpha" in lora:
                up, down = lora[f"{place}.lora_up.weight"], lora[f"{place}.lora_down.weight"]
                weights[name] = weight + strength * float(lora[f"{place}.alpha"]) / len(down) * up @ down
                merged += 1
        assert merged == 2
        save_file(weights, file)


@pytest.mark.parametrize("strength", [5.0, -5.0])
def test_lora_renders_as_merged_weights_do_and_zero_as_none(
    models: Path, tmp_path: Path, strength: float
) -> None:
    root = shutil.copytree(models, tmp_path / "models")
    merged_by_hand(root, strength)
    executor = Executor(root, SCHEMA)
    wanted = [flow(), lora_flow(0.0), lora_flow(strength), flow(ckpt_name="merged")]
    plain, zero, patched, merged = (
        images(executor.render([RenderTask("x", one, "red", 3)]))["x"] for one in wanted
    )
    assert torch.equal(plain, zero)
    assert int((patched.int() - merged.int()).abs().max()) <= 1
    assert (
        float((patched.int() - plain.int()).abs().float().mean()) > 1
    )  # so it is no comparison of like and like


def test_failures_are_told_and_lose_nothing(executor: Executor) -> None:
    bad_name, gone = flow(ckpt_name="../escape"), flow(ckpt_name="gone")
    blown_up = RenderTask("blown up", flow(), "a (star:1e38)", 1)
    wanted = [*tasks(flow(), 3), *tasks(bad_name, 2), *tasks(gone), blown_up, *tasks(flow(width=16))]
    results = {result.sample_id: result for result in executor.render(wanted)}
    assert len(results) == len(wanted)
    assert sum(result.image is not None for result in results.values()) == 4
    assert "ModelNameError" in str(results[tasks(bad_name)[0].sample_id].error)
    assert "CheckpointLoaderSimple" in str(results[tasks(gone)[0].sample_id].error)
    assert "not finite" in str(results["blown up"].error)


def test_one_bad_row_does_not_spoil_its_batch(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    node = NODES["KSampler"]
    sizes = []

    def run(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
        sizes.append(len(rows))
        if any(row["seed"] == 102 for row in rows):
            raise RuntimeError("injected")
        return node.run(rows, library)

    monkeypatch.setitem(NODES, "KSampler", NodeType(node.name, run, node.group, node.order))
    results = {result.sample_id: result for result in executor.render(tasks(flow(), 4))}
    assert sizes == [4, 2, 2, 1, 1]
    failed = results.pop(tasks(flow(), 3)[2].sample_id)
    assert failed.error == "RuntimeError: injected (in KSampler)"
    assert failed.image is None
    assert len(images(iter(results.values()))) == 3


def test_a_flow_that_cannot_be_written_out_fails_alone(models: Path) -> None:
    class Broken:
        key = "broken"

        def to_comfyui(self, prompt: str, seed: int, schema: Schema) -> dict[str, Any]:
            raise KeyError("no such thing")

    broken = RenderTask("bad", Broken(), "x", 1)  # type: ignore[arg-type]
    results = list(Executor(models, SCHEMA).render([broken, *tasks(flow())]))
    assert [result.error is None for result in results] == [False, True]
    assert str(results[0].error).startswith("KeyError")


def test_stop_is_not_swallowed(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
        raise KeyboardInterrupt

    monkeypatch.setitem(NODES, "VAEDecode", NodeType("VAEDecode", stop))
    with pytest.raises(KeyboardInterrupt):
        list(executor.render(tasks(flow())))


def test_images_come_as_they_are_done_and_are_ordinary_tensors(executor: Executor) -> None:
    stream = executor.render(tasks(flow(), 8))
    first = next(stream)
    assert not torch.is_inference_mode_enabled()
    assert first.image is not None
    assert (first.image.dtype, first.image.shape) == (torch.uint8, (3, 64, 64))
    torch.autograd.backward([(first.image.float().requires_grad_() * 2).sum()])
    assert first.seconds > 0
    assert len(list(stream)) == 7


@pytest.mark.parametrize(
    "prompt", ["", "((((", "<|endoftext|>", "{prompt} \\{", "(a:nan)\ud800\0", "star " * 200]
)
def test_any_prompt_is_rendered_as_it_stands(models: Path, executor: Executor, prompt: str) -> None:
    check_by_hand(models, executor, prompt, 2**64 - 1)


def test_prompts_of_unlike_length_share_a_batch(models: Path) -> None:
    texts = ["red", "star " * 40, "blue " * 90]
    wanted = [RenderTask(str(k), flow(), text, k) for k, text in enumerate(texts)]
    together = images(Executor(models, SCHEMA).render(wanted))
    for task in wanted:
        alone = images(Executor(models, SCHEMA).render([task]))[task.sample_id]
        assert float(((alone.int() - together[task.sample_id].int()).abs() <= 1).float().mean()) >= 0.999


def test_half_precision_renders_nearly_the_same_whatever_the_batch(models: Path) -> None:
    wide = tasks(flow(), 5)
    exact = images(Executor(models, SCHEMA, batch_size=5).render(wide))
    half = Executor(models, SCHEMA, batch_size=5, dtype=torch.bfloat16)
    together = images(half.render(wide))
    alone = images(Executor(models, SCHEMA, batch_size=1, dtype=torch.bfloat16).render(wide))
    for name, image in exact.items():
        off = (together[name].int() - image.int()).abs()
        assert 0 < off.float().mean() < 3  # of 255: bfloat16 keeps eight bits
        assert ((together[name].int() - alone[name].int()).abs() <= 1).float().mean() >= 0.999
