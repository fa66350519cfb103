"""Flows that differ in one component are found, and told by what differs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flowsmith.evaluation.component_kinds import KINDS
from flowsmith.evaluation.one_component import one_component_pairs, schema_of
from flowsmith.flows import Flow

Graph = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def plain(**changes: Any) -> Graph:
    """Return the simplest flow; a change is node__input=value."""
    graph: Graph = {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name="base"),
        "pos": node("CLIPTextEncode", text="{prompt}", clip=["ckpt", 1]),
        "neg": node("CLIPTextEncode", text="", clip=["ckpt", 1]),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sample": node(
            "KSampler", model=["ckpt", 0], steps=20, cfg=4.0, sampler_name="euler", scheduler="normal",
            positive=["pos", 0], negative=["neg", 0], latent_image=["empty", 0], denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["ckpt", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="x"),
    }  # fmt: skip
    return changed(graph, **changes)


def changed(graph: Graph, **changes: Any) -> Graph:
    new: Graph = json.loads(json.dumps(graph))
    for target, value in changes.items():
        name, _, key = target.partition("__")
        new[name]["inputs"][key] = value
    return new


def with_lora(graph: Graph, strength: float = 1.0, name: str = "ink.safetensors") -> Graph:
    lora = node(
        "LoraLoader",
        model=["ckpt", 0],
        clip=["ckpt", 1],
        lora_name=name,
        strength_model=strength,
        strength_clip=0.5,
    )
    linked = changed(graph, sample__model=["lora", 0], pos__clip=["lora", 1], neg__clip=["lora", 1])
    return {"lora": lora, **linked}


def with_second_pass(graph: Graph, *, scaled: bool = True, **changes: Any) -> Graph:
    again = changed({"again": graph["sample"]}, again__latent_image=["sample", 0], again__denoise=0.5)
    if scaled:
        again["up"] = node("LatentUpscaleBy", samples=["sample", 0], upscale_method="bislerp", scale_by=1.5)
        again["again"]["inputs"]["latent_image"] = ["up", 0]
    return changed({**graph, **again}, decode__samples=["again", 0], **changes)


def after_decoding(graph: Graph, *nodes: tuple[str, dict[str, Any]]) -> Graph:
    new, last = dict(graph), "decode"
    for name, one in nodes:
        new[name] = {**one, "inputs": {**one["inputs"], "image": [last, 0]}}
        last = name
    return changed(new, save__images=[last, 0])


SHARPEN = ("sharp", node("ImageSharpen", sharpen_radius=1, sigma=1.0, alpha=1.0))
SCALE = ("scale", node("ImageScaleBy", upscale_method="lanczos", scale_by=2.0))
ESRGAN = ("esrgan", node("ImageUpscaleWithModel", upscale_model=["model", 0]))
HALF = ("half", node("ImageScaleBy", upscale_method="area", scale_by=0.5))


def upscaled(*nodes: tuple[str, dict[str, Any]]) -> Graph:
    return {"model": node("UpscaleModelLoader", model_name="x2"), **after_decoding(plain(), *nodes)}


def pairs_of(graphs: Mapping[str, Graph]) -> dict[str, list[tuple[str, str, str]]]:
    """Return kind -> (before, after, change) of the kinds that have any."""
    schema = schema_of({name: json.dumps(graph) for name, graph in graphs.items()})
    flows = {name: Flow.from_template(graph, schema) for name, graph in graphs.items()}
    found = one_component_pairs(flows, schema)
    assert list(found) == list(KINDS)
    return {kind: [(p.before, p.after, p.change) for p in pairs] for kind, pairs in found.items() if pairs}


VALUES = {
    "checkpoint": (plain(), plain(ckpt__ckpt_name="pencil"), "base -> pencil"),
    "lora": (with_lora(plain()), with_lora(plain(), name="oil.safetensors"), "ink.safetensors -> oil.safetensors"),
    "lora_strength": (with_lora(plain()), with_lora(plain(), 0.25), "1.0, 0.5 -> 0.25, 0.5"),
    "prompt_wording": (plain(), plain(pos__text="{prompt}, sharp"), "{prompt} -> {prompt}, sharp"),
    "negative": (plain(), plain(neg__text="blurry"), '"" -> blurry'),
    "sampler": (plain(), plain(sample__sampler_name="heun"), "euler -> heun"),
    "scheduler": (plain(), plain(sample__scheduler="karras"), "normal -> karras"),
    "steps": (plain(), plain(sample__steps=8), "20 -> 8"),
    "guidance": (plain(), plain(sample__cfg=1.0), "4.0 -> 1.0"),
    "resolution": (plain(), plain(empty__width=96), "64, 64 -> 96, 64"),
    "second_pass": (with_second_pass(plain()), with_second_pass(plain(), again__denoise=0.7), "1.0, 0.5 -> 1.0, 0.7"),
    "upscale_image": (after_decoding(plain(), SCALE), after_decoding(plain(), HALF), "lanczos, 2.0 -> area, 0.5"),
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
def test_one_value(kind: str) -> None:
    before, after, change = VALUES[kind]
    assert pairs_of({"a": before, "b": after}) == {kind: [("a", "b", change)]}


NODES = {
    "lora": (plain(), with_lora(plain()), "LoraLoader(ink.safetensors, 1.0, 0.5)"),
    "second_pass": (plain(), with_second_pass(plain(), scaled=False), "KSampler(20, 4.0, euler, normal, 0.5)"),
    "upscale_latent": (
        with_second_pass(plain(), scaled=False), with_second_pass(plain()), "LatentUpscaleBy(bislerp, 1.5)"
    ),
    "upscale_image": (plain(), after_decoding(plain(), SCALE), "ImageScaleBy(lanczos, 2.0)"),
    "sharpen": (plain(), after_decoding(plain(), SHARPEN), "ImageSharpen(1, 1.0, 1.0)"),
    "upscale_model": (plain(), upscaled(ESRGAN), "ImageUpscaleWithModel()"),
    "clip_skip": (
        plain(),
        {
            "skip": node("CLIPSetLastLayer", clip=["ckpt", 1], stop_at_clip_layer=-2),
            **plain(pos__clip=["skip", 0], neg__clip=["skip", 0]),
        },
        "CLIPSetLastLayer(-2)",
    ),
    "rescale_cfg": (
        plain(),
        {"rescale": node("RescaleCFG", model=["ckpt", 0], multiplier=0.7), **plain(sample__model=["rescale", 0])},
        "RescaleCFG(0.7)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NODES)
def test_one_node_more(kind: str) -> None:
    without, having, node_told = NODES[kind]
    # Whichever name comes first: the flow without the component is the one before.
    assert pairs_of({"b": without, "a": having}) == {kind: [("b", "a", f"+ {node_told}")]}


def test_nodes_that_come_with_others() -> None:
    hires = with_second_pass(plain())
    model = upscaled(ESRGAN, HALF)
    found = pairs_of({"plain": plain(), "hires": hires, "model": model})
    assert found["second_pass"] == [
        ("plain", "hires", "+ KSampler(20, 4.0, euler, normal, 0.5), with what leads to it")
    ]
    assert found["upscale_model"] == [
        ("plain", "model", "+ ImageUpscaleWithModel(), with the scaling after it")
    ]
    assert found.keys() == {"second_pass", "upscale_model"}


def test_a_second_pass_over_pixels() -> None:
    graph = after_decoding(plain(), SCALE)
    graph["encode"] = node("VAEEncode", pixels=["scale", 0], vae=["ckpt", 2])
    graph["again"] = changed(
        {"again": graph["sample"]}, again__latent_image=["encode", 0], again__denoise=0.4
    )["again"]
    graph["last"] = node("VAEDecode", samples=["again", 0], vae=["ckpt", 2])
    found = pairs_of({"plain": plain(), "hires": changed(graph, save__images=["last", 0])})
    assert [pair[:2] for pair in found["second_pass"]] == [("plain", "hires")]


def test_a_vae_of_its_own() -> None:
    own = {"vae": node("VAELoader", vae_name="sharp"), **plain(decode__vae=["vae", 0])}
    assert pairs_of({"a": plain(), "b": own}) == {
        "second_vae": [("a", "b", "CheckpointLoaderSimple(base) -> VAELoader(sharp)")]
    }
    other = {"ckpt2": node("CheckpointLoaderSimple", ckpt_name="pencil"), **plain(decode__vae=["ckpt2", 2])}
    assert pairs_of({"a": plain(), "b": other}).keys() == {"second_vae"}


def test_a_series_is_all_its_pairs_and_a_second_lora_is_one_more() -> None:
    series = {f"steps {n:02}": plain(sample__steps=n) for n in (4, 8, 20)}
    found = pairs_of(series)
    assert [pair[:2] for pair in found["steps"]] == [
        ("steps 04", "steps 08"), ("steps 04", "steps 20"), ("steps 08", "steps 20")
    ]  # fmt: skip
    two = with_lora(with_lora(plain()), name="oil.safetensors")
    two["lora"]["inputs"] |= {"model": ["first", 0], "clip": ["first", 1]}
    two["first"] = with_lora(plain())["lora"]
    assert [p[:2] for p in pairs_of({"one": with_lora(plain()), "two": two})["lora"]] == [("one", "two")]


def test_two_differences_are_no_pair() -> None:
    graphs = {
        "a": plain(),
        "b": plain(sample__steps=8, sample__cfg=1.0),
        "c": with_lora(plain(sample__scheduler="karras")),
        "d": with_second_pass(plain(empty__width=96)),
        "e": after_decoding(plain(neg__text="blurry"), SHARPEN, SCALE),
    }
    assert pairs_of(graphs) == {}


def test_the_miniatures_flows() -> None:
    """Of the hand-written flows some differ in one component, and no pair is of two kinds."""
    folder = Path(__file__).parents[2] / "miniature" / "flows"
    graphs = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    found = pairs_of(graphs)
    assert ("default", "pencil") in [pair[:2] for pair in found["checkpoint"]]
    assert ("default", "hires_fix") in [pair[:2] for pair in found["second_pass"]]
    pairs = [frozenset(pair[:2]) for those in found.values() for pair in those]
    assert len(pairs) == len(set(pairs))
