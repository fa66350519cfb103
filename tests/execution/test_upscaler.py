"""Upscale models: tiny random Compact networks, written to a folder and loaded the public way."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowsmith.execution import ExecutionError, ModelFileError, ModelLibrary, ModelNameError
from flowsmith.execution.nodes import find_node
from tests.execution.running import run
from tests.tiny_world import make_tiny_upscaler


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("upscalers")
    make_tiny_upscaler(root / "upscale_models" / "x2.safetensors")
    make_tiny_upscaler(root / "upscale_models" / "x4.safetensors", 1, factor=4)
    return root


def images(n: int = 1) -> Tensor:
    return torch.rand(n, 3, 7, 5, generator=torch.Generator().manual_seed(0))


def by_hand(tensors: dict[str, Tensor], x: Tensor, factor: int) -> Tensor:
    """Run SRVGGNetCompact (Real-ESRGAN): convolutions and PReLUs, then pixels shuffled out over nearest ones."""
    layer = x
    for k in range(0, 7, 2):
        layer = F.conv2d(layer, tensors[f"body.{k}.weight"], tensors[f"body.{k}.bias"], padding=1)
        if k < 6:
            layer = F.prelu(layer, tensors[f"body.{k + 1}.weight"])
    return F.pixel_shuffle(layer, factor) + F.interpolate(x, scale_factor=factor, mode="nearest")


@pytest.mark.parametrize("factor", [2, 4])
def test_upscaling_is_the_network_cut_to_the_range_of_images(tmp_path: Path, factor: int) -> None:
    tensors = make_tiny_upscaler(tmp_path / "upscale_models" / "x.safetensors", 5, factor=factor)
    library = ModelLibrary(tmp_path)
    model = run(library, "UpscaleModelLoader", model_name="x.safetensors")
    assert model.factor == factor
    large = run(library, "ImageUpscaleWithModel", upscale_model=model, image=images(2))
    free = by_hand(tensors, images(2), factor)
    assert large.shape == (2, 3, 7 * factor, 5 * factor)
    assert float(free.min()) < 0
    assert float(free.max()) > 1
    torch.testing.assert_close(large, free.clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_half_precision_files_are_run_in_float32(tmp_path: Path) -> None:
    tensors = make_tiny_upscaler(tmp_path / "upscale_models" / "x.safetensors")
    half = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(half, tmp_path / "upscale_models" / "x.safetensors")
    model = run(ModelLibrary(tmp_path), "UpscaleModelLoader", model_name="x.safetensors")
    large = run(ModelLibrary(tmp_path), "ImageUpscaleWithModel", upscale_model=model, image=images())
    rounded = {name: tensor.float() for name, tensor in half.items()}
    torch.testing.assert_close(large, by_hand(rounded, images(), 2).clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_rows_together_are_as_alone_and_unlike_models_apart(root: Path) -> None:
    library, node = ModelLibrary(root), find_node("ImageUpscaleWithModel")
    one, other = library.upscaler("x2.safetensors"), library.upscaler("x4.safetensors")
    assert library.upscaler("x2.safetensors") is one
    rows = [{"upscale_model": one, "image": images(2)}, {"upscale_model": one, "image": images(2).flip(-1)}]
    assert node.group(rows[0]) == node.group(rows[1]) != node.group({**rows[0], "upscale_model": other})
    assert node.group(rows[0]) != node.group({**rows[0], "image": images(1)})
    with torch.inference_mode():
        for row, (large,) in zip(rows, node.run(rows, library), strict=True):
            torch.testing.assert_close(large, node.run([row], library)[0][0])


def test_names_and_hashes(root: Path) -> None:
    library = ModelLibrary(root)
    assert library.names("upscale_models") == ["x2.safetensors", "x4.safetensors"]
    assert {*library.weight_hashes} == {"upscale_models/x2.safetensors", "upscale_models/x4.safetensors"}


@pytest.mark.parametrize("name", ["../x2.safetensors", "/x2.safetensors", "sub/../../x", "C:\\x", "", "."])
def test_names_stay_inside_the_folder(root: Path, name: str) -> None:
    with pytest.raises(ModelNameError, match="inside that folder"):
        run(ModelLibrary(root), "UpscaleModelLoader", model_name=name)


@pytest.mark.parametrize("nest", ["params_ema", "params", None])
def test_authors_pth_files_are_the_same_model(root: Path, tmp_path: Path, nest: str | None) -> None:
    """Real-ESRGAN's authors publish pickles with the weights under "params_ema" or "params"."""
    tensors = load_file(root / "upscale_models" / "x2.safetensors")
    (tmp_path / "upscale_models").mkdir()
    torch.save({nest: tensors} if nest else tensors, tmp_path / "upscale_models" / "x2.pth")
    assert ModelLibrary(tmp_path).names("upscale_models") == ["x2.pth"]
    one, other = (
        run(ModelLibrary(place), "UpscaleModelLoader", model_name=name)
        for place, name in ((root, "x2.safetensors"), (tmp_path, "x2.pth"))
    )
    assert torch.equal(one(images()), other(images()))


def test_a_missing_name_lists_what_is_there(root: Path) -> None:
    with pytest.raises(ModelNameError, match=r"gone is not in .*: x2\.safetensors, x4\.safetensors"):
        run(ModelLibrary(root), "UpscaleModelLoader", model_name="gone")
    with pytest.raises(ModelNameError, match="use one of: nothing"):
        run(ModelLibrary(root / "nowhere"), "UpscaleModelLoader", model_name="g" * 5000)


def test_broken_and_unfit_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "upscale_models"
    tensors = make_tiny_upscaler(folder / "cut.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "cut.safetensors").read_bytes()[:-50])
    save_file({n: t for n, t in tensors.items() if n != "body.2.bias"}, folder / "part.safetensors")
    save_file({"x": torch.zeros(3)}, folder / "other.safetensors")
    make_tiny_upscaler(folder / "grey.safetensors", channels=1)
    for name, says in (
        ("cut", "no readable safetensors"),
        ("part", "holds no upscale model that spandrel knows .*body.2.bias"),
        ("other", "holds no upscale model that spandrel knows .*UnsupportedModelError"),
        ("grey", "is a RealESRGAN Compact of 1 to 1 channels; use a model from RGB pictures to RGB"),
    ):
        with pytest.raises(ModelFileError, match=rf"{name}\.safetensors: {says}"):
            run(ModelLibrary(tmp_path), "UpscaleModelLoader", model_name=f"{name}.safetensors")


def test_images_that_are_not_rgb(root: Path) -> None:
    model = ModelLibrary(root).upscaler("x2.safetensors")
    with pytest.raises(ExecutionError, match="image of 1 channels cannot be upscaled"):
        run(ModelLibrary(root), "ImageUpscaleWithModel", upscale_model=model, image=torch.zeros(1, 1, 4, 4))
