"""Filters, substitutes for what is not installed, and the choice of flows."""

from typing import Any

import pytest

from flowsmith.flows import Flow, Schema
from flowsmith.flows.building.filters import Reason, mixed, unfit
from flowsmith.flows.building.imports import Kept, normalised
from flowsmith.flows.building.missing import on_installed
from flowsmith.flows.building.selection import select
from flowsmith.flows.exchange import import_graph
from tests.flows.building_world import MODELS, flow, graph, installation

SCHEMA = installation()


def linked(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def with_nodes(**nodes: Any) -> dict[str, Any]:
    return graph() | nodes


def from_picture(**sampler: Any) -> dict[str, Any]:
    made = with_nodes(
        load=linked("LoadImage", image="mine.png"), enc=linked("VAEEncode", pixels=["load", 0], vae=["4", 2])
    )
    made["3"]["inputs"] |= {"latent_image": ["enc", 0], **sampler}
    return made


def controlled() -> dict[str, Any]:
    made = with_nodes(
        net=linked("ControlNetLoader", control_net_name="c.pth"),
        load=linked("LoadImage", image="a.png"),
        led=linked("ControlNetApply", conditioning=["6", 0], control_net=["net", 0], image=["load", 0]),
    )
    made["3"]["inputs"]["positive"] = ["led", 0]
    return made


def silent() -> dict[str, Any]:
    made = graph()
    made["6"]["inputs"]["text"] = ""
    return made


def two_texts() -> dict[str, Any]:
    made = graph(denoise=0.5) | {"more": linked("CLIPTextEncode", text="a hat", clip=["4", 1])}
    made["second"] = {"class_type": "KSampler", "inputs": {**made["3"]["inputs"], "positive": ["more", 0]}}
    made["second"]["inputs"]["latent_image"] = ["3", 0]
    made["8"]["inputs"]["samples"] = ["second", 0]
    return made


def painted_elsewhere() -> dict[str, Any]:
    return {
        "1": linked("CloudPaint", prompt="a fox", seed=1),
        "2": linked("SaveImage", images=["1", 0], filename_prefix="x"),
    }


def described() -> dict[str, Any]:
    made = with_nodes(words=linked("Describe", clip=["4", 1], topic="a fox"))
    made["6"]["inputs"]["text"] = ["words", 0]
    return made


def picked_size() -> dict[str, Any]:
    made = with_nodes(size=linked("EmptyPicker", size="512 x 512"))
    made["3"]["inputs"]["latent_image"] = ["size", 0]
    return made


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (graph(), None), (picked_size(), None), (described(), None), (graph(loras=("ink.safetensors",)), None),
        (from_picture(), "picture_input"), (controlled(), "control_image"),
        (with_nodes(v=linked("SaveAnimatedWEBP", images=["8", 0])), "video"),
        (with_nodes(v=linked("CreateVideo", images=["8", 0])), "video"),
        (with_nodes(s=linked("ToSound", images=["8", 0])), "no_picture"),
        (painted_elsewhere(), "paid_service"), (silent(), "no_prompt"), (two_texts(), "fixed_text"),
    ],
)  # fmt: skip
def test_what_is_no_text_to_image_flow(made: dict[str, Any], kind: str | None) -> None:
    found = import_graph(made, SCHEMA)
    reason = unfit(found.require(), found.prompt, found.literals, found.schema)
    assert (reason.kind if reason else None) == kind


def test_a_picture_shown_without_sampling() -> None:
    schema = SCHEMA.restrict(
        ["SaveImage", "LoadImage", "VAEDecode", "CheckpointLoaderSimple", "EmptyLatentImage"]
    )
    made = {
        "1": linked("CheckpointLoaderSimple", ckpt_name="old_a.safetensors"),
        "2": linked("EmptyLatentImage", width=64, height=64, batch_size=1),
        "3": linked("VAEDecode", samples=["2", 0], vae=["1", 2]),
        "4": linked("SaveImage", images=["3", 0], filename_prefix="x"),
    }
    reason = unfit(Flow.from_template(made, schema), "a fox", (), schema)
    assert reason == Reason("no_sampling", "no node samples a picture")


def test_a_lora_on_another_family() -> None:
    assert mixed(flow(SCHEMA, loras=("ink.safetensors", "riddle.safetensors")), SCHEMA, MODELS) is None
    found = mixed(flow(SCHEMA, loras=("ink.safetensors", "neon.safetensors")), SCHEMA, MODELS)
    assert found == Reason("families_mixed", "neon.safetensors is of sdxl, on a model of sd1")
    assert mixed(flow(SCHEMA, "riddle.safetensors", ("neon.safetensors",)), SCHEMA, MODELS) is None


def extended(*files: str, loras: tuple[str, ...] = ()) -> Schema:
    """The installation of whoever made a flow."""
    more = SCHEMA.restrict(choices={"CheckpointLoaderSimple.ckpt_name": files})
    return more.restrict(choices={"LoraLoader.lora_name": [*loras, "ink.safetensors"]}) if loras else more


def test_files_that_are_not_installed_give_way_within_their_family() -> None:
    theirs = extended("sd_xl_base_1.0.safetensors", loras=("theirs.safetensors",))
    made = flow(theirs, "sd_xl_base_1.0.safetensors", ("theirs.safetensors", "theirs.safetensors"))
    found = on_installed(made, SCHEMA, MODELS)
    assert not isinstance(found, Reason)
    assert found[0] == flow(SCHEMA, "big_a.safetensors"), "both LoRAs are gone, with what linked them"
    assert found[1] == [
        "big_a.safetensors took the place of sd_xl_base_1.0.safetensors, which is not installed",
        "the LoRA theirs.safetensors is not installed and was taken out",
        "the LoRA theirs.safetensors is not installed and was taken out",
    ]


@pytest.mark.parametrize(
    ("file", "told"),
    [("flux1-dev.safetensors", "of the family flux1"), ("dreams.safetensors", "of unknown family")],
)
def test_without_one_of_its_family_there_is_no_flow(file: str, told: str) -> None:
    found = on_installed(flow(extended(file), file), SCHEMA, MODELS)
    assert isinstance(found, Reason)
    assert (found.kind, told in found.detail) == ("model_not_installed", True)


def test_the_checkpoints_own_vae_takes_the_place_of_another() -> None:
    theirs = SCHEMA.restrict(choices={"VAELoader.vae_name": ["theirs.pt"]})
    made = graph() | {"vae": linked("VAELoader", vae_name="theirs.pt")}
    made["8"]["inputs"]["vae"] = ["vae", 0]
    made["6"]["inputs"]["text"] = "{prompt}"
    found = on_installed(Flow.from_template(made, theirs), SCHEMA, MODELS)
    assert not isinstance(found, Reason)
    assert found[0] == flow(SCHEMA)


def kept(file: str, made: Flow) -> Kept:
    import json

    return Kept(file, json.dumps(made.to_template()))


def test_equal_flows_count_once_and_names_do_not_clash() -> None:
    one, two = flow(SCHEMA), flow(SCHEMA, steps=30)
    imports = [
        kept("a/x y.json", one),
        kept("b/x_y.png", two),
        kept("c/z.json", one),
        Kept("d", None, (), Reason("video", "")),
    ]
    selected = select(imports, SCHEMA, MODELS, 1)
    assert selected.flows == {"x_y": one, "x_y_2": two}
    assert selected.dropped == {
        "c/z.json": Reason("duplicate", "the same flow as a/x y.json"),
        "d": Reason("video", ""),
    }


def test_rare_blocks_fall_until_none_is_left() -> None:
    """A flow that falls for one class makes another class rare."""
    picker, lora = picked_size(), graph(loras=("ink.safetensors",))
    both = picked_size()
    both["lora0"] = lora["lora0"]
    both["3"]["inputs"]["model"] = ["lora0", 0]
    flows = {}
    for name, made in {
        "plain": graph(),
        "plain2": graph(steps=9),
        "lora": lora,
        "both": both,
        "pick": picker,
    }.items():
        made["6"]["inputs"]["text"] = "{prompt}"
        flows[name] = Flow.from_template(made, SCHEMA)
    imports = [kept(name, made) for name, made in flows.items()]
    assert set(select(imports, SCHEMA, MODELS, 2).flows) == {"plain", "plain2", "lora", "both", "pick"}
    # EmptyLatentImage: 3, EmptyPicker: 2, LoraLoader: 2. At three, picker and LoRA fall, then EmptyLatentImage: 2.
    assert set(select(imports, SCHEMA, MODELS, 3).flows) == set()
    without = [one for one in imports if one.file != "pick"]
    found = select(without, SCHEMA, MODELS, 2)
    # EmptyPicker: 1 takes "both" with it, then LoraLoader: 1 takes "lora".
    assert set(found.flows) == {"plain", "plain2"}
    assert found.dropped["lora"] == Reason("rare_block", "LoraLoader: in fewer than 2 flows")


def test_one_picture_under_one_name() -> None:
    made = graph()
    made["5"]["inputs"]["batch_size"] = 4
    made["9"]["inputs"]["filename_prefix"] = "theirs/out_%date%"
    changed, batch = normalised(Flow.from_comfyui(made, SCHEMA), SCHEMA)
    plain = graph()
    plain["9"]["inputs"]["filename_prefix"] = "flowsmith"
    assert batch
    assert changed == Flow.from_comfyui(plain, SCHEMA)
    assert normalised(changed, SCHEMA) == (changed, False)
