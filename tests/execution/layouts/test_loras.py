"""LoRAs of SDXL, Stable Diffusion 3 and Flux in the names of kohya, diffusers and ComfyUI's own trainers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flowsmith.execution import ModelFileError, ModelLibrary
from flowsmith.execution.nodes import find_node
from tests.execution.layouts.small import Small, small_checkpoint, write, write_t5_tokenizer

RANK, ALPHA, STRENGTH, TEXT_STRENGTH = 2, 3.0, 0.7, -0.4


@pytest.fixture(scope="module")
def made() -> dict[str, Small]:
    return {family: small_checkpoint(family) for family in ("sd1", "sdxl", "sd3", "flux")}


@pytest.fixture(scope="module")
def root(made: dict[str, Small], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("loras")
    write_t5_tokenizer(root / "text_encoders" / "t5_tokenizer")
    for family, small in made.items():
        write(small, root / "checkpoints" / f"{family}.safetensors")
    (root / "loras").mkdir()
    return root


@pytest.fixture(scope="module")
def library(root: Path) -> ModelLibrary:
    return ModelLibrary(root)


class Maker:
    """Makes changes and remembers what they are, by the names that the file gives them."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(5)

    def kohya(self, name: str, rows: int, columns: tuple[int, ...]) -> Tensor:
        """Add a change under kohya's names; return it as a matrix at strength 1."""
        return self._add(name, rows, columns, ".lora_down.weight", ".lora_up.weight", ALPHA)

    def peft(self, name: str, rows: int, columns: tuple[int, ...]) -> Tensor:
        """Add a change under peft's names, without alpha."""
        return self._add(name, rows, columns, ".lora_A.weight", ".lora_B.weight", None)

    def _add(
        self, name: str, rows: int, columns: tuple[int, ...], down: str, up: str, alpha: float | None
    ) -> Tensor:
        ones = (1,) * (len(columns) - 1)
        low = torch.randn(RANK, *columns, generator=self._generator) * 0.1
        high = torch.randn(rows, RANK, *ones, generator=self._generator)
        self.tensors |= {name + down: low, name + up: high}
        if alpha is not None:
            self.tensors[f"{name}.alpha"] = torch.tensor(alpha)
        return (alpha or RANK) / RANK * high.flatten(1) @ low.flatten(1)

    def save(self, file: Path) -> str:
        """Write the file; return its name."""
        save_file(self.tensors, file)
        return file.name


def apply(library: ModelLibrary, family: str, lora: str) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Load a checkpoint and a LoRA through their nodes; return the networks."""
    with torch.inference_mode():
        loader = find_node("CheckpointLoaderSimple").run([{"ckpt_name": f"{family}.safetensors"}], library)
        model, clip, _ = loader[0]
        row: dict[str, Any] = {"model": model, "clip": clip, "lora_name": lora}
        row |= {"strength_model": STRENGTH, "strength_clip": TEXT_STRENGTH}
        model, clip = find_node("LoraLoader").run([row], library)[0]
    return model.network, {name: tower.model for name, tower in clip.towers.items()}


def assert_changed(got: nn.Module, base: nn.Module, changes: dict[str, Tensor]) -> None:
    """Compare every parameter with the original and the changes of some of them, already times strength."""
    left, weights = dict(changes), dict(base.named_parameters())
    # A network within another one is called by its own names on one side and by longer ones on the other.
    for name, parameter in got.named_parameters():
        key = name if name in weights else name.removeprefix("text_model.")
        change = left.pop(f"{key.removesuffix('.weight')}", None) if key.endswith(".weight") else None
        expected = weights[key] if change is None else weights[key] + change.view(weights[key].shape)
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)
    assert not left


ATTENTION = "attentions.0.transformer_blocks.1.attn2.to_k"


@pytest.mark.parametrize("style", ["authors", "diffusers", "peft"])
def test_sdxl(made: dict[str, Small], root: Path, library: ModelLibrary, style: str) -> None:
    """kohya's trainer calls SDXL's blocks as its authors do; others as diffusers does."""
    maker, text = Maker(), "encoder.layers.1.mlp.fc1"
    names = {
        "authors": (
            "lora_unet_input_blocks_5_1_transformer_blocks_1_attn2_to_k",
            "lora_unet_output_blocks_1_0_skip_connection",
            "lora_unet_middle_block_2_in_layers_2",
            "lora_unet_output_blocks_1_2_conv",
        ),
        "diffusers": (
            f"lora_unet_down_blocks_2_{ATTENTION.replace('.', '_')}",
            "lora_unet_up_blocks_0_resnets_1_conv_shortcut",
            "lora_unet_mid_block_resnets_1_conv1",
            "lora_unet_up_blocks_0_upsamplers_0_conv",
        ),
        "peft": (
            f"unet.down_blocks.2.{ATTENTION}",
            "unet.up_blocks.0.resnets.1.conv_shortcut",
            "unet.mid_block.resnets.1.conv1",
            "unet.up_blocks.0.upsamplers.0.conv",
        ),
    }[style]
    add: Callable[..., Tensor] = maker.peft if style == "peft" else maker.kohya
    changes = {
        f"down_blocks.2.{ATTENTION}": add(names[0], 128, (96,)),
        "up_blocks.0.resnets.1.conv_shortcut": add(names[1], 128, (192, 1, 1)),
        "mid_block.resnets.1.conv1": add(names[2], 128, (128, 3, 3)),
        "up_blocks.0.upsamplers.0.conv": add(names[3], 128, (128, 3, 3)),
    }
    if style == "peft":
        first = add(f"text_encoder.text_model.{text}", 64, (32,))
        second = add(f"text_encoder_2.text_model.{text}", 256, (64,))
    else:
        flat = text.replace(".", "_")
        first = add(f"lora_te1_text_model_{flat}", 64, (32,))
        second = add(f"lora_te2_text_model_{flat}", 256, (64,))
    network, towers = apply(library, "sdxl", maker.save(root / "loras" / f"{style}.safetensors"))
    small = made["sdxl"]
    assert_changed(network, small.network, {name: STRENGTH * change for name, change in changes.items()})
    assert_changed(towers["l"], small.texts["l"], {text: TEXT_STRENGTH * first})
    weight = small.texts["g"].transformer.resblocks[1].mlp.c_fc.weight  # open_clip's network
    got = towers["g"].get_submodule(f"text_model.{text}").weight
    torch.testing.assert_close(got, weight + TEXT_STRENGTH * second, rtol=1e-5, atol=1e-6)


def test_flux_by_its_authors_names(made: dict[str, Small], root: Path, library: ModelLibrary) -> None:
    """A change of the fused query, key and value, or of a single block's first layer, falls to several modules."""
    maker = Maker()
    qkv = maker.kohya("lora_unet_double_blocks_1_img_attn_qkv", 192, (64,))
    text_qkv = maker.kohya("lora_unet_double_blocks_0_txt_attn_qkv", 192, (64,))
    inner = maker.kohya("lora_unet_single_blocks_1_linear1", 448, (64,))
    last = maker.kohya("lora_unet_final_layer_adaLN_modulation_1", 128, (64,))
    clip_l = maker.kohya("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 32, (32,))
    t5 = maker.kohya("lora_te3_encoder_block_1_layer_0_SelfAttention_v", 32, (96,))
    network, towers = apply(library, "flux", maker.save(root / "loras" / "flux.safetensors"))
    changes = {
        **{f"transformer_blocks.1.attn.to_{n}": qkv[64 * k : 64 * k + 64] for k, n in enumerate("qkv")},
        **{
            f"transformer_blocks.0.attn.add_{n}_proj": text_qkv[64 * k : 64 * k + 64]
            for k, n in enumerate("qkv")
        },
        **{
            f"single_transformer_blocks.1.attn.to_{n}": inner[64 * k : 64 * k + 64]
            for k, n in enumerate("qkv")
        },
        "single_transformer_blocks.1.proj_mlp": inner[192:],
        "norm_out.linear": torch.cat([last[64:], last[:64]]),
    }
    small = made["flux"]
    assert_changed(network, small.network, {name: STRENGTH * change for name, change in changes.items()})
    assert_changed(
        towers["l"], small.texts["l"], {"encoder.layers.0.self_attn.q_proj": TEXT_STRENGTH * clip_l}
    )
    assert_changed(
        towers["t5xxl"], small.texts["t5xxl"], {"encoder.block.1.layer.0.SelfAttention.v": TEXT_STRENGTH * t5}
    )


@pytest.mark.parametrize("prefix", ["transformer.", "diffusion_model."])
def test_flux_in_peft_style(made: dict[str, Small], root: Path, library: ModelLibrary, prefix: str) -> None:
    maker = Maker()
    name = "single_transformer_blocks.0.proj_out"
    change = maker.peft(
        prefix + name if prefix == "transformer." else f"{prefix}single_blocks.0.linear2", 64, (320,)
    )
    network, _ = apply(library, "flux", maker.save(root / "loras" / f"{prefix}safetensors"))
    assert_changed(network, made["flux"].network, {name: STRENGTH * change})


def test_stable_diffusion_3(made: dict[str, Small], root: Path, library: ModelLibrary) -> None:
    maker = Maker()
    qkv = maker.kohya("lora_unet_joint_blocks_0_context_block_attn_qkv", 192, (64,))
    own = maker.peft("transformer.transformer_blocks.1.ff.net.2", 64, (256,))
    network, _ = apply(library, "sd3", maker.save(root / "loras" / "sd3.safetensors"))
    changes = {
        f"transformer_blocks.0.attn.add_{n}_proj": qkv[64 * k : 64 * k + 64] for k, n in enumerate("qkv")
    }
    changes["transformer_blocks.1.ff.net.2"] = own
    assert_changed(
        network, made["sd3"].network, {name: STRENGTH * change for name, change in changes.items()}
    )


@pytest.mark.parametrize(
    ("checkpoint", "name", "rows", "columns", "seems"),
    [
        ("sd1", "lora_unet_double_blocks_0_img_mod_lin", 96, 16, r"one for Flux\.1"),
        (
            "sdxl",
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
            320,
            768,
            "Stable Diffusion 1",
        ),
        ("sd1", "lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_v", 1280, 2048, "one for SDXL"),
        (
            "sd1",
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
            64,
            1024,
            "Stable Diffusion 2",
        ),
        ("flux", "lora_unet_joint_blocks_0_x_block_mlp_fc1", 256, 64, r"Stable Diffusion 3 or Flux\.1"),
    ],
)
def test_a_lora_of_another_family_is_refused(
    root: Path, library: ModelLibrary, checkpoint: str, name: str, rows: int, columns: int, seems: str
) -> None:
    maker = Maker()
    maker.kohya(name, rows, (columns,))
    file = maker.save(root / "loras" / f"other_{checkpoint}_{columns}_{rows}.safetensors")
    says = (
        rf"{file}: .*(lacks|another shape in this model); use a LoRA of its family \(it seems to be {seems}"
    )
    with pytest.raises(ModelFileError, match=says.replace("to be Stable", "to be one for Stable")):
        apply(library, checkpoint, file)


def test_a_text_encoder_that_is_not_there(root: Path, library: ModelLibrary) -> None:
    maker = Maker()
    maker.kohya("lora_te2_text_model_encoder_layers_0_mlp_fc1", 64, (32,))
    file = maker.save(root / "loras" / "two.safetensors")
    with pytest.raises(ModelFileError, match=r"changes text encoder 2, which this CLIP lacks \(it has l\)"):
        apply(library, "sd1", file)
    model = library.checkpoint("sd1.safetensors").model
    assert library.with_lora(model, None, file, 1.0) == (
        model,
        None,
    )  # LoraLoaderModelOnly asks for nothing else
