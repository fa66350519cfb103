"""Families: read off headers that are written here, told by servers and names, refined by users."""

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from flowsmith.flows import Schema
from flowsmith.flows.building.families import family_of, family_of_metadata, family_of_name, refined_by_name
from flowsmith.flows.building.headers import Header, read_header
from flowsmith.flows.building.installed import ModelsFolderError, find_models, with_folder
from flowsmith.flows.building.models_yaml import (
    ModelFile,
    ModelsFileError,
    add_models,
    read_models,
    refine,
)
from flowsmith.flows.building.server_metadata import fetch_metadata

ATTENTION = "model.diffusion_model.{}.1.transformer_blocks.0.attn2.to_k.weight"


def weights(path: Path, shapes: Mapping[str, tuple[int, ...]], **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.zeros(shape, np.float16) for name, shape in shapes.items()}, path, metadata or None)
    return path


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        ({ATTENTION.format("input_blocks.1"): (320, 768)}, "sd1"),
        ({ATTENTION.format("output_blocks.3"): (320, 1024)}, "sd2"),
        ({ATTENTION.format("input_blocks.4"): (640, 2048)}, "sdxl"),
        ({ATTENTION.format("middle_block"): (1536, 1280)}, "sdxl_refiner"),
        ({"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight": (320, 768)}, "sd1"),
        ({"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 2048)}, "sdxl"),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_v.lora_down.weight": (4, 768)}, "sd1"),
        ({"unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (8, 1024)}, "sd2"),
        ({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (9, 3)}, "flux1"),
        ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (16, 3072)}, "flux1"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (9, 3)}, "sd3"),
        # Inpainting models read a mask and a picture beside the noise.
        ({ATTENTION.format("input_blocks.1"): (320, 768),
          "model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)}, "sd1_inpainting"),
        # The way out of a LoRA, the attention of a picture to itself, and networks that are no U-Net tell nothing.
        ({"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": (768, 8)}, None),
        ({ATTENTION.format("input_blocks.1").replace("attn2", "attn1"): (768, 768)}, None),
        ({"transformer_blocks.0.attn2.to_k.weight": (2048, 2048)}, None),
        ({ATTENTION.format("input_blocks.1"): (320, 768), ATTENTION.format("input_blocks.4"): (640, 2048)}, None),
        ({ATTENTION.format("input_blocks.1"): (320, 777)}, None),
    ],
)  # fmt: skip
def test_tensors_tell_the_family(
    shapes: dict[str, tuple[int, ...]], family: str | None, tmp_path: Path
) -> None:
    header = read_header(
        weights(tmp_path / "model.safetensors", {n: s[:1] + s[1:] for n, s in shapes.items()})
    )
    assert header is not None
    assert header.shapes == shapes
    assert family_of(header) == family


def test_metadata_tells_it_where_tensors_do_not_and_a_contradiction_is_a_doubt() -> None:
    sdxl = {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
    assert family_of_metadata(sdxl) == "sdxl"
    assert family_of_metadata({"ss_base_model_version": "sd_v1"}) == "sd1"
    assert family_of(Header({"x": (1,)}, sdxl)) == "sdxl"
    unet = {ATTENTION.format("input_blocks.1"): (320, 768)}
    assert family_of(Header(unet, sdxl)) is None
    assert family_of(Header(unet, {"ss_base_model_version": "sd_v1"})) == "sd1"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("v1-5-pruned-emaonly.safetensors", "sd1"), ("v2-1_768-ema-pruned.ckpt", "sd2"),
        ("SDXL/sd_xl_base_1.0.safetensors", "sdxl"), ("sd_xl_refiner_1.0.safetensors", "sdxl_refiner"),
        ("sd_xl_turbo_1.0_fp16.safetensors", "sdxl/distilled"), ("flux1-schnell.safetensors", "flux1/distilled"),
        ("flux1-dev.safetensors", "flux1"), ("dreamshaper_8.safetensors", None),
    ],
)  # fmt: skip
def test_names_of_published_models(name: str, family: str | None) -> None:
    assert family_of_name(name) == family


def test_models_of_few_steps_are_set_apart() -> None:
    assert refined_by_name("sd1", "LCM-lora-sdv1-5.safetensors") == "sd1/distilled"
    assert refined_by_name("sdxl", "hyperrealism.safetensors") == "sdxl"
    assert refined_by_name(None, "turbo.safetensors") is None


def test_files_that_are_no_safetensors(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "b.ckpt").write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
    for name in ("a.safetensors", "b.ckpt", "missing.safetensors"):
        assert read_header(tmp_path / name) is None


def test_what_is_installed_and_of_which_family(tmp_path: Path) -> None:
    unet = {ATTENTION.format("input_blocks.1"): (320, 768)}
    weights(tmp_path / "checkpoints" / "old" / "plain.safetensors", unet)
    weights(tmp_path / "checkpoints" / "turbo.safetensors", {ATTENTION.format("input_blocks.4"): (640, 2048)})
    weights(tmp_path / "loras" / "ink.safetensors", {"x": (1,)}, ss_base_model_version="sdxl_base_v1-0")
    weights(tmp_path / "loras" / "odd.safetensors", {"x": (1,)})
    schema = with_folder(
        Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": ["gone.ckpt"]}), tmp_path
    )
    listed = {
        s.name: s.choices
        for name in ("CheckpointLoaderSimple", "LoraLoader")
        for s in schema.nodes[name].inputs
    }
    assert listed["ckpt_name"] == ("gone.ckpt", "old/plain.safetensors", "turbo.safetensors")
    assert listed["lora_name"] == ("ink.safetensors", "odd.safetensors")
    written = {
        "checkpoints/old/plain.safetensors": ModelFile("sdxl"),  # its tensors know better
        "checkpoints/turbo.safetensors": ModelFile("sdxl/pony"),
        "loras/odd.safetensors": ModelFile("sd1", ("odd style",)),
        "loras/absent.safetensors": ModelFile("sd1"),
    }
    models = find_models(schema, written, tmp_path)
    assert {name: models.files[name].family for name in models.installed} == {
        "checkpoints/gone.ckpt": None,
        "checkpoints/old/plain.safetensors": "sd1",
        "checkpoints/turbo.safetensors": "sdxl/pony",
        "loras/ink.safetensors": "sdxl",
        "loras/odd.safetensors": "sd1",
    }
    assert models.fitting("loras", "sd1") == ["odd.safetensors"], "the absent one is not installed"
    assert models.fitting("loras", None) == []
    assert models.contradicted == (
        "checkpoints/old/plain.safetensors: models.yaml says sdxl, the file itself sd1, which counts",
    )
    assert models.of("loras", "odd.safetensors").trigger_words == ("odd style",)
    with pytest.raises(ModelsFolderError, match="holds none of the folders"):
        with_folder(Schema.core(), tmp_path / "loras")


@pytest.fixture
def server() -> Iterator[str]:
    """A server that tells metadata as ComfyUI does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {
                "sub%2Fink%20%26%20co.safetensors": b'{"ss_base_model_version": "sd_v1", "n": 1}',
                "list.safetensors": b"[1]",
                "torn.safetensors": b'{"a',
            }
            body = known.get(self.path.removeprefix("/view_metadata/loras?filename="))
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


def test_a_name_that_leaves_the_folder_is_not_looked_up(tmp_path: Path) -> None:
    secret = weights(tmp_path / "secret.safetensors", {ATTENTION.format("input_blocks.1"): (320, 768)})
    inside = tmp_path / "models" / "loras" / "inside.safetensors"
    weights(inside, {"x": (1,)}, ss_base_model_version="sd_v2")
    names = ["../../secret.safetensors", str(secret), "inside.safetensors"]
    schema = Schema.core().restrict(choices={"LoraLoader.lora_name": names})
    models = find_models(schema, {}, tmp_path / "models")
    assert [models.family("loras", name) for name in names] == [None, None, "sd2"]


def test_a_server_tells_metadata(server: str) -> None:
    assert fetch_metadata(server, "loras", "sub/ink & co.safetensors") == {"ss_base_model_version": "sd_v1"}
    for name in ("list.safetensors", "torn.safetensors", "unknown.safetensors"):
        assert fetch_metadata(server, "loras", name) == {}
    assert fetch_metadata("http://127.0.0.1:9", "loras", "x.safetensors") == {}
    schema = Schema.core().restrict(choices={"LoraLoader.lora_name": ["sub/ink & co.safetensors"]})
    models = find_models(schema, {}, server=server)
    assert models.family("loras", "sub/ink & co.safetensors") == "sd1"


def test_what_a_user_wrote_stays(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    add_models(path, {"loras/a.safetensors": ModelFile("sd1"), "loras/b.safetensors": ModelFile()}, ())
    text = path.read_text()
    edited = text.replace(
        "family: null", "family: sdxl  # I know\n  trigger_words: [ink, 'of: old']\n  strength: [0.2, 0.5]"
    )
    path.write_text(edited)
    known = read_models(path)
    assert known["loras/b.safetensors"] == ModelFile("sdxl", ("ink", "of: old"), (0.2, 0.5))
    add_models(path, {**known, "checkpoints/ü.safetensors": ModelFile("sd2", note="new")}, known)
    assert path.read_text().startswith(edited), "comments and all"
    assert read_models(path) == {**known, "checkpoints/ü.safetensors": ModelFile("sd2", note="new")}
    before = path.stat().st_mtime_ns
    add_models(path, known, read_models(path))
    assert path.stat().st_mtime_ns == before


def test_users_may_refine_what_was_measured() -> None:
    assert refine("sdxl", "sdxl/pony") == "sdxl/pony"
    assert refine("sdxl/distilled", "sdxl") == "sdxl"
    assert refine("sdxl", "sd1") == "sdxl"
    assert refine("sdxl", None) == "sdxl"
    assert refine(None, "sd1") == "sd1"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- a", "no mapping"), ("loras/a: [1]", r"loras/a: \[1\]"), ("loras/a: {famly: sd1}", "did you mean 'family'"),
        ("loras/a: {family: 3}", "family=3"), ("loras/a: {trigger_words: ink}", "trigger_words='ink'"),
        ("loras/a: {strength: [1.0, 0.5]}", "strength="), ("loras/a: {strength: [.nan, 1]}", "strength="),
        ("loras/a: {strength: true}", "strength=True"), ("a: {", "cannot be read"),
        ("[" * 20_000, "cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_in_it_are_told(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(content)
    with pytest.raises(ModelsFileError, match=told):
        read_models(tmp_path / "models.yaml")


def test_a_header_is_json_of_bounded_length(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    read = read_header(path)
    assert read is not None
    assert read.shapes == {"x": (2, 3)}
    path.write_bytes((1 << 60).to_bytes(8, "little") + header)
    assert read_header(path) is None
