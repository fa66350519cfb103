import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from flowsmith.execution import RenderResult, RenderTask
from miniature.captions import TASKS, sample_prompt, split_of
from miniature.judges.faults import FAULTS
from miniature.judges.generated import (
    FLOWS,
    flow_of,
    gate_generated,
    make_generated,
    render_prompts,
)
from miniature.judges.images import SIZE, to_judged_size
from miniature.judges.shown import Shown, half_of, load_generated
from tests.miniature.painted import Painted, side_of

NUMBER = 8  # prompts


@pytest.fixture(scope="module")
def painted() -> Painted:
    return Painted()


@pytest.fixture(scope="module")
def folder(painted: Painted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("miniature.judges.generated.Executor", painted.executor)
        patch.setattr("miniature.judges.generated.read_scene", painted.read)
        out = tmp_path_factory.mktemp("generated") / "pictures"
        make_generated(out, models=Path("none"), seed=3, number=NUMBER)
    return out


@pytest.fixture(scope="module")
def shown(folder: Path) -> Shown:
    return load_generated(folder, seed=5)


def test_flows_differ_from_the_default_in_what_is_named() -> None:
    default = {node["class_type"]: node["inputs"] for node in flow_of().to_template().values()}
    hasty = {node["class_type"]: node["inputs"] for node in flow_of(steps=4).to_template().values()}
    assert hasty["KSampler"] == {**default["KSampler"], "steps": 4}
    assert {name: hasty[name] for name in default if name != "KSampler"} == {
        name: default[name] for name in default if name != "KSampler"
    }
    assert len({flow_of(**changes).key for changes in FLOWS.values()}) == len(FLOWS) <= 6


def test_a_sharpened_flow_ends_with_that_node() -> None:
    graph = flow_of(sharpen=0.2).to_template()
    node, inputs = next((k, n["inputs"]) for k, n in graph.items() if n["class_type"] == "ImageSharpen")
    assert (inputs["sharpen_radius"], inputs["sigma"], inputs["alpha"]) == (1, 1.0, 0.2)
    save = next(n["inputs"] for n in graph.values() if n["class_type"] == "SaveImage")
    assert save["images"] == [node, 0]
    assert graph[inputs["image"][0]]["class_type"] == "VAEDecode"


def test_an_input_that_no_node_has() -> None:
    with pytest.raises(ValueError, match="guidance=3: the default flow has no such input"):
        flow_of(guidance=3)


def test_every_prompt_meets_every_flow_from_one_noise(painted: Painted, folder: Path) -> None:
    assert len(painted.tasks) == NUMBER * len(FLOWS)
    seeds: dict[str, set[int]] = {}
    for task in painted.tasks:
        seeds.setdefault(task.prompt, set()).add(task.seed)
    assert len(seeds) == NUMBER
    assert all(len(those) == 1 for those in seeds.values())
    records = json.loads((folder / "pictures.json").read_text())["pictures"]
    assert {r["prompt"]["task"] for r in records} == set(TASKS)
    assert all(split_of(r["facts"]) == "train" for r in records)
    assert not [file for file in folder.iterdir() if file.suffix not in (".json", ".safetensors")]


def test_pictures_keep_their_scene_and_prompt(painted: Painted, shown: Shown) -> None:
    by_picture = {}
    for pixels, scene in painted.scenes.items():
        side = round((len(pixels) / 3) ** 0.5)
        picture = np.frombuffer(bytearray(pixels), np.uint8).reshape(side, side, 3)
        by_picture[to_judged_size(picture[None])[0].tobytes()] = (side, scene)
    originals = [row for row, origin in enumerate(shown.clean) if row == origin]
    assert len(originals) == NUMBER * len(FLOWS)
    assert shown.images.shape[1:] == (3, SIZE, SIZE)
    for row in originals:
        side, scene = by_picture[shown.images[row].permute(1, 2, 0).contiguous().numpy().tobytes()]
        view = shown.views[row]
        if sum(g.count for g in scene.groups) < 3:
            assert view
            assert (view.scene, view.fault, view.size, view.generated) == (scene, None, side, True)
        else:
            assert view is None
    asked = {task.prompt: task for task in painted.tasks}
    assert set(shown.by_prompt) == set(asked)
    for text, rows in shown.by_prompt.items():
        assert {shown.prompts[row].text for row in rows} == {text}
        assert len({shown.clean[row] for row in rows}) == len(FLOWS)
    assert {view.size for view in shown.views if view} == {64, 96}


def test_spoilt_copies_follow_what_they_are_copies_of(folder: Path, shown: Shown) -> None:
    spoilt = [row for row, origin in enumerate(shown.clean) if row != origin]
    assert 0.3 < len(spoilt) / len(set(shown.clean)) < 0.7
    readable = [row for row in spoilt if shown.views[row]]
    assert readable == shown.spoilt
    assert 0 < len(readable) < len(spoilt), "some cannot be read, and are spoilt too"
    for row, gain in zip(readable, shown.gains(readable), strict=True):
        view, original = shown.views[row], shown.views[shown.clean[row]]
        assert view
        assert original
        assert view.fault in FAULTS[:-1]
        assert view.scene == original.scene
        assert gain == pytest.approx(view.rating - original.rating)
        if view.strength > 0.3:  # the weakest may round away
            assert not torch.equal(shown.images[row], shown.images[shown.clean[row]])
    for row in spoilt:
        assert shown.prompts[row] == shown.prompts[shown.clean[row]]
    again = load_generated(folder, seed=5)
    assert again.views == shown.views
    assert torch.equal(again.images, shown.images)
    assert load_generated(folder, seed=6).views != shown.views


def test_halves_share_no_prompt(folder: Path, shown: Shown) -> None:
    halves = [load_generated(folder, seed=5, half=half, spoilt=0.0) for half in (0, 1)]
    assert not set(halves[0].by_prompt) & set(halves[1].by_prompt)
    assert set(halves[0].by_prompt) | set(halves[1].by_prompt) == set(shown.by_prompt)
    assert all(half_of(text) == half for half in (0, 1) for text in halves[half].by_prompt)
    assert 400 < sum(half_of(f"prompt {i}") for i in range(1000)) < 600


def test_gate_counts_what_can_be_read(folder: Path, shown: Shown) -> None:
    figures = gate_generated(folder)
    originals = {row for row, origin in enumerate(shown.clean) if row == origin}
    assert figures["pictures"] == NUMBER * len(FLOWS)
    assert figures["readable"] == pytest.approx(
        sum(shown.views[row] is not None for row in originals) / len(originals)
    )
    assert np.mean([figures[f"readable, {name}"] for name in FLOWS]) == pytest.approx(figures["readable"])


def test_a_picture_that_cannot_be_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Painted):
        def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
            return (RenderResult(task.sample_id, None, "no such file", 0.0) for task in tasks)

    monkeypatch.setattr("miniature.judges.generated.Executor", Broken().executor)
    prompt = sample_prompt("counting", 0, "train", np.random.default_rng(0))
    with pytest.raises(
        RuntimeError, match="flow 'default' cannot be rendered with the weights in none: no such"
    ):
        render_prompts([prompt], {"default": flow_of()}, Path("none"), 0)


def test_the_painter_reads_the_flow() -> None:
    assert side_of(flow_of(width=96, height=96)) == 96
