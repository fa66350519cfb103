"""What a file tells about its family and its training, and what is refused with the reason."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flowsmith.execution import ModelFileError, ModelLibrary
from flowsmith.execution.layouts.family import detect_family
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.sigmas import NoiseTable
from tests.execution.layouts import small
from tests.execution.layouts.originals import Tensors, original_flux, original_mmdit, original_unet


def load(root: Path, tensors: Tensors) -> DiffusionModel:
    """Write a denoising network alone and load it as UNETLoader does."""
    folder = root / "diffusion_models"
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "x.safetensors")
    return ModelLibrary(root).diffusion_model("x.safetensors")


def unet(family: str, **changes: Any) -> Tensors:
    return original_unet(small.unet(family, **changes).state_dict(), 1)


def shaped(**shapes: tuple[int, ...]) -> Tensors:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


def test_a_prefix_may_be_there_or_not(tmp_path: Path) -> None:
    plain = load(tmp_path, unet("sd1"))
    prefixed = load(tmp_path, {f"model.diffusion_model.{name}": t for name, t in unet("sd1").items()})
    for one, other in zip(plain.network.parameters(), prefixed.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_stable_diffusion_2_predicts_v_if_the_late_norm_varies(tmp_path: Path) -> None:
    tensors = unet("sd2")
    name = "output_blocks.3.1.transformer_blocks.0.norm1.bias"
    tensors[name] = torch.linspace(-1, 1, 64) * 0.15  # its standard deviation is 0.088
    assert load(tmp_path, tensors).prediction == "epsilon"
    tensors[name] = torch.linspace(-1, 1, 64) * 0.16
    assert load(tmp_path, tensors).prediction == "v_prediction"
    first = unet("sd1")
    first["output_blocks.3.1.transformer_blocks.0.norm1.bias"] = torch.linspace(-1, 1, 32)
    assert load(tmp_path, first).prediction == "epsilon"  # the sign means nothing there


def test_marks_of_sdxl(tmp_path: Path) -> None:
    tensors, mark = unet("sdxl"), torch.zeros(0)
    plain = load(tmp_path, tensors)
    assert plain.prediction == "epsilon"
    marked = load(tmp_path, {**tensors, "v_pred": mark, "ztsnr": mark})
    assert marked.prediction == "v_prediction"
    assert isinstance(marked.table, NoiseTable)
    assert marked.table.maximum > 1000 > plain.table.maximum  # no signal at the end
    with pytest.raises(ModelFileError, match=r"x\.safetensors: is a model of the family Playground 2.5"):
        load(tmp_path, {**tensors, "edm_mean": mark, "edm_std": mark})


@pytest.mark.parametrize(
    ("dual", "norm"), [((0,), "rms_norm"), ((), "rms_norm")], ids=["3.5 medium", "3.5 large"]
)
def test_stable_diffusion_3_5(tmp_path: Path, dual: tuple[int, ...], norm: str) -> None:
    network = small.mmdit(dual, norm)
    model = load(tmp_path, original_mmdit(network.state_dict(), 2))
    x, text, pooled = torch.randn(1, 16, 8, 8), torch.randn(1, 5, 96), torch.randn(1, 96)
    with torch.inference_mode():
        expected, got = (
            one(x, text, pooled, torch.tensor([300.0])).sample for one in (network, model.network)
        )
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_flux_without_guidance_is_not_shifted(tmp_path: Path) -> None:
    schnell = load(tmp_path, original_flux(small.flux(guidance=False).state_dict(), 2, 2))
    dev = load(tmp_path, original_flux(small.flux().state_dict(), 2, 2))
    assert schnell.table.sigma(500) == pytest.approx(0.5)
    # Flux.1 dev: e^1.15 / (e^1.15 + 1 / t - 1)
    assert dev.table.sigma(500) == pytest.approx(2.718281828**1.15 / (2.718281828**1.15 + 1))


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        (
            shaped(double_blocks__0__img_attn__norm__key_norm__scale=(8,), distilled_guidance_layer__x=(1,)),
            "Chroma",
        ),
        (shaped(double_blocks__0__x=(1,), single_stream_modulation__lin__weight=(1,)), "Flux.2"),
        (shaped(txt_in__individual_token_refiner__blocks__0__norm1__weight=(1,)), "HunyuanVideo"),
        (shaped(cap_embedder__0__weight=(1,), layers__0__x=(1,)), "Lumina 2 or Z-Image"),
        (shaped(txt_norm__weight=(1,), transformer_blocks__0__attn__to_q__weight=(1,)), "Qwen-Image"),
        (shaped(double_layers__0__attn__w1q__weight=(1,)), "AuraFlow"),
        (shaped(clip_txt_mapper__weight=(1,)), "Stable Cascade"),
    ],
)
def test_other_families_are_named(tensors: Tensors, family: str) -> None:
    with pytest.raises(
        ModelFileError, match=rf"x: is a model of the family {family}, .* use one of Stable Diffusion 1"
    ):
        detect_family(tensors, Path("x"))


def test_what_is_no_diffusion_model() -> None:
    with pytest.raises(ModelFileError, match="x: holds no diffusion model in a layout known here"):
        detect_family({"weight": torch.zeros(1)}, Path("x"))


def test_models_that_are_told_a_picture(tmp_path: Path) -> None:
    inpainting = unet("sd1", in_channels=9)
    with pytest.raises(
        ModelFileError, match="Stable Diffusion 1 for inpainting or control, which takes 9 channels"
    ):
        load(tmp_path, inpainting)
    embedding = {"label_emb.0.0.weight": torch.zeros(128, 64), "label_emb.0.0.bias": torch.zeros(128)}
    with pytest.raises(ModelFileError, match="Stable Diffusion 2 unCLIP"):
        load(tmp_path, {**unet("sd2"), **embedding})
    fill = original_flux(small.flux().state_dict(), 2, 2)
    fill["img_in.weight"] = torch.zeros(64, 384)
    with pytest.raises(
        ModelFileError, match=r"Flux\.1 for inpainting or control, which takes 384 .* gives 64"
    ):
        load(tmp_path, fill)


def without(tensors: Tensors, part: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if part not in name}


def test_distilled_and_incomplete_networks(tmp_path: Path) -> None:
    shallow = without(unet("sdxl"), "middle_block.1.transformer_blocks.1.")
    with pytest.raises(
        ModelFileError, match=r"transformers are \[\(0,\), \(1,\), \(2,\)\] blocks deep and 1 in the m"
    ):
        load(tmp_path, shallow)
    with pytest.raises(ModelFileError, match=r"the diffusion model lacks out\.2\.weight; use a whole file"):
        load(tmp_path, without(unet("sd1"), "out.2"))
    with pytest.raises(ModelFileError, match=r"tensors do not fit a UNet2DConditionModel .*conv2\.weight"):
        load(tmp_path, without(unet("sd1"), "output_blocks.1.0.out_layers.3"))
    flux = original_flux(small.flux().state_dict(), 2, 2)
    with pytest.raises(ModelFileError, match=r"the diffusion model lacks txt_in\.weight"):
        load(tmp_path, without(flux, "txt_in"))
    with pytest.raises(ModelFileError, match=r"tensors do not fit a FluxTransformer2DModel .*unknown"):
        load(tmp_path, {**flux, "unknown.weight": torch.zeros(1)})


def test_weights_in_8_bits(tmp_path: Path) -> None:
    """Plain ones are what they are; those with a scale beside them are multiplied by it."""
    tensors: dict[str, Tensor] = {name: t.to(torch.float8_e4m3fn) for name, t in unet("sd1").items()}
    plain = load(tmp_path, tensors).network.state_dict()
    name, place = "middle_block.1.proj_in", "mid_block.attentions.0.proj_in.weight"
    assert torch.equal(plain[place], tensors[f"{name}.weight"].float())
    scales = {
        f"{name}.scale_weight": torch.tensor(0.25),
        "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }
    scaled = load(tmp_path, {**tensors, **scales}).network.state_dict()
    assert torch.equal(scaled[place], plain[place] * 0.25)
    assert torch.equal(scaled["conv_in.weight"], plain["conv_in.weight"])
    with pytest.raises(ModelFileError, match="quantised in a way not known here"):
        load(tmp_path, {**tensors, f"{name}.comfy_quant": torch.zeros(4)})
