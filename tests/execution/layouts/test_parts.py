"""Parts of models in files of their own: text encoders, autoencoders, and the folders that they lie in."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowsmith.execution import ModelFileError, ModelLibrary, ModelNameError
from flowsmith.execution.conditioning import TextEncoding
from tests.execution.layouts import small
from tests.execution.layouts.originals import Tensors, original_taesd, original_vae
from tests.execution.layouts.references import open_clip_text, transformers_clip, transformers_t5
from tests.execution.running import run
from tests.tiny_world import make_tiny_vae

WORDS = "red cat"


def write(file: Path, tensors: Tensors) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, file)
    return file


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    folder = root / "text_encoders"
    write(folder / "clip_l.safetensors", small.hugging_face(small.clip(projected=True)))
    write(folder / "clip_g.safetensors", small.hugging_face(small.clip(64, "gelu", projected=True)))
    write(folder / "open_clip_h.safetensors", small.text_part(small.open_clip(layers=24)))
    write(folder / "t5xxl.safetensors", small.t5().state_dict())
    write(root / "clip" / "old.safetensors", small.hugging_face(small.clip()))
    small.write_t5_tokenizer(folder / "t5_tokenizer")
    return root


@pytest.fixture(scope="module")
def library(root: Path) -> ModelLibrary:
    return ModelLibrary(root)


def encoded(library: ModelLibrary, names: list[str], kind: str) -> TextEncoding:
    with torch.inference_mode():
        (encoding,) = library.text_encoder([f"{name}.safetensors" for name in names], kind).encode([WORDS])
    return encoding


def close(got: Tensor | None, expected: Tensor) -> None:
    assert got is not None
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_one_text_encoder(library: ModelLibrary) -> None:
    clip_l = transformers_clip(small.clip(projected=True), WORDS)
    close(encoded(library, ["clip_l"], "stable_diffusion").states, clip_l["last"])
    close(
        encoded(library, ["old"], "stable_diffusion").states, transformers_clip(small.clip(), WORDS)["last"]
    )
    clip_h = open_clip_text(small.open_clip(layers=24), WORDS)  # known by its depth
    close(encoded(library, ["open_clip_h"], "stable_diffusion").states, clip_h["normed"])


@pytest.mark.parametrize("names", [["clip_l", "clip_g"], ["clip_g", "clip_l"]])
def test_two_of_sdxl_in_any_order(library: ModelLibrary, names: list[str]) -> None:
    clip_l = transformers_clip(small.clip(projected=True), WORDS)
    clip_g = transformers_clip(small.clip(64, "gelu", projected=True), WORDS, 0)
    got = encoded(library, names, "sdxl")
    close(got.states, torch.cat([clip_l["penultimate"], clip_g["penultimate"]], -1))
    close(got.pooled, clip_g["projected"])


def test_those_of_flux_and_stable_diffusion_3(library: ModelLibrary) -> None:
    clip_l = transformers_clip(small.clip(projected=True), WORDS)
    clip_g = transformers_clip(small.clip(64, "gelu", projected=True), WORDS, 0)
    flux = library.text_encoder(["t5xxl.safetensors", "clip_l.safetensors"], "flux")
    ids = flux.towers["t5xxl"].tokenizer.encode(WORDS, add_special_tokens=False)
    close(encoded(library, ["t5xxl", "clip_l"], "flux").states, transformers_t5(small.t5(), ids, 256))
    close(encoded(library, ["t5xxl", "clip_l"], "flux").pooled, clip_l["pooled"])
    three = encoded(library, ["clip_g", "t5xxl", "clip_l"], "sd3")
    beside = torch.cat([clip_l["penultimate"], clip_g["penultimate"]], -1)
    close(three.states, torch.cat([beside, transformers_t5(small.t5(), ids, 77)]))
    close(three.pooled, torch.cat([clip_l["pooled"], clip_g["projected"]]))


@pytest.mark.parametrize(
    ("names", "kind", "says"),
    [
        (["clip_l"], "flux", r"hold the text encoders l; type='flux' wants l and t5xxl for Flux\.1"),
        (["clip_l"], "sdxl", "wants g and l for SDXL or g for SDXL refiner"),
        (["t5xxl"], "stable_diffusion", "hold the text encoders t5xxl; type='stable_diffusion' wants l for"),
        (
            ["clip_l"],
            "wan",
            r"type='wan': no text encoder of it can be run; use stable_diffusion, sdxl, sd3, flux",
        ),
        (["t5xxl", "t5xxl"], "sd3", "hold the same kind of text encoder twice"),
    ],
)
def test_text_encoders_that_are_not_those_of_a_kind(
    library: ModelLibrary, names: list[str], kind: str, says: str
) -> None:
    with pytest.raises(ModelFileError, match=says):
        encoded(library, names, kind)


def test_what_is_no_text_encoder(tmp_path: Path) -> None:
    write(tmp_path / "text_encoders" / "x.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(ModelFileError, match=r"x\.safetensors: holds neither a CLIP text encoder nor a T5"):
        encoded(ModelLibrary(tmp_path), ["x"], "sdxl")
    write(tmp_path / "text_encoders" / "t5.safetensors", small.t5().state_dict())
    with pytest.raises(
        ModelFileError, match=r"T5's tokenizer is not at nowhere .*t5_tokenizer/ of the models folder"
    ):
        encoded(ModelLibrary(tmp_path, t5_tokenizer="nowhere"), ["t5"], "sd3")


def test_16_channels_and_diffusers_names(tmp_path: Path) -> None:
    network = small.vae(16)
    write(tmp_path / "vae" / "authors.safetensors", original_vae(network.state_dict(), 2))
    write(tmp_path / "vae" / "diffusers.safetensors", network.state_dict())
    library = ModelLibrary(tmp_path)
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.encode(pixels * 2 - 1).latent_dist.mean
    for name in library.names("vae"):
        vae = run(library, "VAELoader", vae_name=name)
        assert vae.latent.channels == 16
        close(run(library, "VAEEncode", pixels=pixels, vae=vae), expected)


@pytest.mark.parametrize(("name", "channels"), [("taesd", 4), ("taesdxl", 4), ("taesd3", 16), ("taef1", 16)])
def test_tiny_autoencoders_of_two_files(tmp_path: Path, name: str, channels: int) -> None:
    """They work on latents as the diffusion model sees them, which the loader's scale and shift make of others."""
    from diffusers import AutoencoderTiny

    network = small.stirred(AutoencoderTiny(latent_channels=channels))
    for half, tensors in original_taesd(network.state_dict()).items():
        write(tmp_path / "vae_approx" / f"{name}_{half}.safetensors", tensors)
    library = ModelLibrary(tmp_path)
    assert library.names("vae") == [name]
    assert len(library.weight_hashes) == 2
    scale, shift = {
        "taesd": (0.18215, 0.0),
        "taesdxl": (0.13025, 0.0),
        "taesd3": (1.5305, 0.0609),
        "taef1": (0.3611, 0.1159),
    }[name]
    vae = run(library, "VAELoader", vae_name=name)
    seen = torch.randn(1, channels, 2, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        picture = (network.decode(seen).sample / 2 + 0.5).clamp(0, 1)
        latents = network.encode(picture * 2 - 1).latents
    close(run(library, "VAEDecode", samples=seen / scale + shift, vae=vae), picture)
    close(run(library, "VAEEncode", pixels=picture, vae=vae), latents / scale + shift)


def test_half_a_tiny_autoencoder_is_none(tmp_path: Path) -> None:
    write(tmp_path / "vae_approx" / "taesd_decoder.safetensors", {"1.weight": torch.zeros(64, 4, 3, 3)})
    assert ModelLibrary(tmp_path).names("vae") == []
    with pytest.raises(ModelNameError, match="vae/taesd is not in the library"):
        ModelLibrary(tmp_path).vae("taesd")


def test_folders_of_both_names(root: Path, tmp_path: Path) -> None:
    names = ModelLibrary(root).names("text_encoders")
    assert names == [f"{n}.safetensors" for n in ("clip_g", "clip_l", "old", "open_clip_h", "t5xxl")]
    for folder, value in (("unet", 1.0), ("diffusion_models", 2.0)):
        write(tmp_path / folder / "x.sft", {"a": torch.full((1,), value)})
    library = ModelLibrary(tmp_path)
    assert library.names("diffusion_models") == ["x.sft"]
    assert (
        float(load_file(library.path("diffusion_models", "x.sft"))["a"]) == 2.0
    )  # the newer name comes first
    make_tiny_vae(tmp_path / "vae" / "own")
    assert library.vae("own") is library.vae("own")
