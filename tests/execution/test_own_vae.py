"""VAEs that are no part of a checkpoint, and images encoded to latents."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowsmith.execution import ExecutionError, ModelFileError, ModelLibrary, ModelNameError
from flowsmith.execution.nodes import find_node
from tests.execution.layouts.originals import original_vae
from tests.execution.running import run
from tests.tiny_world import make_tiny_vae


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with VAEs of factor 2 and 4."""
    root = tmp_path_factory.mktemp("vaes")
    make_tiny_vae(root / "vae" / "half")
    blocks = {"block_out_channels": (8, 8, 8)}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    make_tiny_vae(root / "vae" / "sub" / "quarter", 4, **blocks, **kinds)
    return root


def image(height: int, width: int, n: int = 1) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_names_and_hashes(root: Path) -> None:
    library = ModelLibrary(root)
    assert library.names("vae") == ["half", "sub/quarter"]
    assert set(library.weight_hashes) == {"vae/half", "vae/sub/quarter"}


def test_encoding_is_diffusers_mode_and_decoding_its_decoder(root: Path) -> None:
    from diffusers import AutoencoderKL

    vae = run(ModelLibrary(root), "VAELoader", vae_name="half")
    reference = AutoencoderKL.from_pretrained(root / "vae" / "half").eval()
    pixels = image(12, 16, 2)
    with torch.inference_mode():
        expected = reference.encode(pixels * 2 - 1).latent_dist.mean
        picture = (reference.decode(expected).sample / 2 + 0.5).clamp(0, 1)
    latents = run(ModelLibrary(root), "VAEEncode", pixels=pixels, vae=vae)
    assert latents.shape == (2, 4, 6, 8)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    decoded = run(ModelLibrary(root), "VAEDecode", samples=latents, vae=vae)
    torch.testing.assert_close(decoded, picture, rtol=1e-4, atol=1e-5)


def test_what_is_no_whole_latent_is_cut_off_on_both_sides(root: Path) -> None:
    vae = run(ModelLibrary(root), "VAELoader", vae_name="sub/quarter")
    pixels = image(10, 15)
    whole = run(ModelLibrary(root), "VAEEncode", pixels=pixels, vae=vae)
    middle = run(ModelLibrary(root), "VAEEncode", pixels=pixels[:, :, 1:9, 1:13], vae=vae)
    assert whole.shape == (1, 4, 2, 3)
    assert torch.equal(whole, middle)


def test_rows_together_are_as_alone(root: Path) -> None:
    library = ModelLibrary(root)
    node, vae = find_node("VAEEncode"), library.vae("half")
    rows = [{"pixels": pixels, "vae": vae} for pixels in (image(8, 8, 2), image(8, 8, 2).flip(-1))]
    assert node.group(rows[0]) == node.group(rows[1])
    with torch.inference_mode():
        together = node.run(rows, library)
        for row, (latents,) in zip(rows, together, strict=True):
            torch.testing.assert_close(latents, node.run([row], library)[0][0])


def test_encodings_of_unlike_vaes_never_share_a_batch(root: Path) -> None:
    library, node = ModelLibrary(root), find_node("VAEEncode")
    groups = {node.group({"pixels": image(8, 8), "vae": library.vae(n)}) for n in ("half", "sub/quarter")}
    assert len(groups) == 2
    assert library.vae("half") is library.vae("half")
    with pytest.raises(ModelNameError):  # so a checkpoint's key can never be that of a VAE
        library.path("checkpoints", library.vae("half").key)


@pytest.mark.parametrize("shape", [(1, 3, 3, 16), (1, 1, 16, 16), (1, 4, 16, 16)])
def test_images_without_latents(root: Path, shape: tuple[int, ...]) -> None:
    vae = ModelLibrary(root).vae("sub/quarter")
    with pytest.raises(ExecutionError, match=f"image of {shape[1]} x {shape[2]} x {shape[3]} has no latents"):
        run(ModelLibrary(root), "VAEEncode", pixels=torch.zeros(shape), vae=vae)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_a_single_file_in_the_original_layout_is_the_same_vae(tmp_path: Path, prefix: str) -> None:
    """Its shapes are read off the tensors; norms have 32 groups in every such file."""
    folder = make_tiny_vae(
        tmp_path / "vae" / "folder", block_out_channels=(32, 64), norm_num_groups=32, layers_per_block=1
    )
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    renamed = original_vae(tensors, 2, prefix) | {"loss.logvar": torch.zeros(())}  # the training's own
    save_file(renamed, tmp_path / "vae" / "file.safetensors")
    library = ModelLibrary(tmp_path)
    assert library.names("vae") == ["file.safetensors", "folder"]
    one, other = (run(library, "VAELoader", vae_name=name) for name in library.names("vae"))
    assert one.latent.factor == other.latent.factor == 2
    assert one.key != other.key
    latents = [run(library, "VAEEncode", pixels=image(8, 10), vae=vae) for vae in (one, other)]
    torch.testing.assert_close(*latents)
    pictures = [run(library, "VAEDecode", samples=latents[0], vae=vae) for vae in (one, other)]
    torch.testing.assert_close(*pictures)


@pytest.mark.parametrize("name", ["../half", "/half", "half/../../x", "C:\\half", "", "."])
def test_names_stay_inside_the_folder(root: Path, name: str) -> None:
    with pytest.raises(ModelNameError, match="inside that folder"):
        run(ModelLibrary(root), "VAELoader", vae_name=name)


def test_a_missing_name_lists_what_is_there(root: Path) -> None:
    with pytest.raises(ModelNameError, match="vae/gone is not in the library; use one of: half, sub/quarter"):
        run(ModelLibrary(root), "VAELoader", vae_name="gone")


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("diffusion_pytorch_model.safetensors", "truncated", "no readable safetensors"),
        ("diffusion_pytorch_model.safetensors", "gone", "holds no .safetensors"),
        ("config.json", "garbage", "no readable JSON"),
        ("config.json", '{"_class_name": "AutoencoderTiny"}', "AutoencoderTiny, which cannot be run here"),
        ("config.json", '{"in_channels": 1}', "a VAE from 1 to 3 channels; use one from RGB"),
        ("config.json", '{"block_out_channels": [8, 32]}', "tensors do not fit"),
    ],
)
def test_broken_folders_are_named(root: Path, tmp_path: Path, file: str, damage: str, says: str) -> None:
    path = shutil.copytree(root / "vae" / "half", tmp_path / "vae" / "hurt") / file
    if damage == "gone":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "garbage":
        path.write_text("{")
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | json.loads(damage)))
    with pytest.raises(ModelFileError, match=f"hurt.*{says}"):
        run(ModelLibrary(tmp_path), "VAELoader", vae_name="hurt")


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "holds no VAE"),
        ({"decoder.conv_in.weight": (8, 4, 3, 3)}, "lacks encoder.conv_in.weight"),
        ({"taesd_decoder.3.conv.0.weight": (64, 64, 3, 3)}, "lacks taesd_decoder.1.weight"),
        ({"taesd_decoder.1.weight": (64, 4, 3, 3)}, "tensors do not fit a AutoencoderTiny"),
        ({"encoder.down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}, "diffusers folder with its config"),
    ],
)
def test_files_that_hold_no_whole_vae(tmp_path: Path, tensors: dict[str, tuple[int, ...]], says: str) -> None:
    (tmp_path / "vae").mkdir()
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, tmp_path / "vae/x.safetensors")
    with pytest.raises(ModelFileError, match=rf"x\.safetensors: .*{says}"):
        run(ModelLibrary(tmp_path), "VAELoader", vae_name="x.safetensors")
