from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowsmith.execution import ModelFileError, ModelLibrary
from flowsmith.execution.lora import NETWORK, read_lora
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.text import TextEncoder
from tests.tiny_world import make_tiny_lora

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture
def library(models: Path) -> ModelLibrary:
    for name, style, alpha in (("peft", "peft", 2.0), ("plain", "kohya", None)):
        make_tiny_lora(models / "loras" / f"{name}.safetensors", style, alpha=alpha)  # type: ignore[arg-type]
    return ModelLibrary(models)


def loaded(library: ModelLibrary) -> tuple[DiffusionModel, TextEncoder]:
    checkpoint = library.checkpoint("tiny_a")
    assert checkpoint.text is not None
    return checkpoint.model, checkpoint.text


def tower(text: TextEncoder | None) -> nn.Module:
    assert text is not None
    return text.towers["l"].model


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def test_change_of_a_weight_by_hand(library: ModelLibrary) -> None:
    model, text = loaded(library)
    before = parameters(model.network)[f"{LAYER}.weight"]
    patched, _ = library.with_lora(model, text, "tiny.safetensors", -0.7, 1.0)
    tensors = load_file(library.path("loras", "tiny.safetensors"))
    place = "lora_unet_" + LAYER.replace(".", "_")
    product = tensors[f"{place}.lora_up.weight"] @ tensors[f"{place}.lora_down.weight"]
    expected = before - 0.7 * (2.0 / 4) * product  # alpha 2, rank 4
    torch.testing.assert_close(parameters(patched.network)[f"{LAYER}.weight"], expected)


def test_without_alpha_the_rank_does_not_scale(library: ModelLibrary) -> None:
    whole = library.path("loras", "plain.safetensors")
    assert {change.scale for change in read_lora(whole).parts[NETWORK].values()} == {1.0}


def test_strength_is_linear_and_the_original_stays(library: ModelLibrary) -> None:
    model, text = loaded(library)
    base = parameters(model.network), parameters(tower(text))
    changed = []
    for strength in (1.0, 2.0, -1.0):
        patched, encoder = library.with_lora(model, text, "tiny.safetensors", strength, strength)
        changed.append((parameters(patched.network), parameters(tower(encoder))))
    for part in range(2):
        moved = 0
        for name, start in base[part].items():
            once, twice, back = (weights[part][name] - start for weights in changed)
            torch.testing.assert_close(twice, 2 * once, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(back, -once, rtol=1e-4, atol=1e-6)
            moved += bool(once.abs().max() > 1e-3)
        assert moved == 2  # both changed layers of this part, and no other
    for kept, now in zip(base, (model.network, tower(text)), strict=True):
        assert all(torch.equal(parameter, kept[name]) for name, parameter in now.named_parameters())


def test_zero_strength_is_the_model_itself(library: ModelLibrary) -> None:
    model, text = loaded(library)
    assert library.with_lora(model, text, "tiny.safetensors", 0.0, 0.0) == (model, text)
    patched, same = library.with_lora(model, text, "tiny.safetensors", 0.5, 0)
    assert same is text
    assert patched.key != model.key


def test_both_namings_give_the_same_weights(library: ModelLibrary) -> None:
    model, text = loaded(library)
    kohya = library.with_lora(model, text, "tiny.safetensors", 0.8, 0.6)
    peft = library.with_lora(model, text, "peft.safetensors", 0.8, 0.6)
    for one, other in ((kohya[0].network, peft[0].network), (tower(kohya[1]), tower(peft[1]))):
        weights = parameters(other)
        assert all(torch.equal(weight, weights[name]) for name, weight in parameters(one).items())


def test_patched_copies_are_kept_and_share_what_is_unchanged(library: ModelLibrary) -> None:
    model, text = loaded(library)
    first, _ = library.with_lora(model, text, "tiny.safetensors", 0.8, 0.6)
    again, _ = library.with_lora(model, text, "tiny.safetensors", 0.8, 0.1)
    assert again.network is first.network
    pairs = zip(model.network.parameters(), first.network.parameters(), strict=True)
    unshared = [one for one, other in pairs if one.data_ptr() != other.data_ptr()]
    assert len(unshared) == 2


def test_two_in_a_row_add_up(library: ModelLibrary) -> None:
    model, text = loaded(library)
    half = library.with_lora(
        *library.with_lora(model, text, "tiny.safetensors", 0.5, 0), "peft.safetensors", 0.25, 0
    )
    once = library.with_lora(model, text, "tiny.safetensors", 0.75, 0)
    got, expected = (pair[0].network.get_submodule(LAYER).weight for pair in (half, once))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("damage", ["stray", "half", "shape", "foreign", "empty"])
def test_unfit_files_are_named(library: ModelLibrary, damage: str) -> None:
    tensors = load_file(library.path("loras", "tiny.safetensors"))
    up = next(name for name in tensors if name.endswith("lora_up.weight") and "unet" in name)
    if damage == "stray":
        tensors["lora_unet_mid.diff"] = torch.zeros(2)
    elif damage == "half":
        del tensors[up]
    elif damage == "shape":
        tensors[up] = torch.zeros(5, 4)
    elif damage == "foreign":
        tensors = {name.replace("mid_block", "joint_block"): tensor for name, tensor in tensors.items()}
    else:
        tensors = {}
    file = library.root / "loras" / f"{damage}.safetensors"
    save_file(tensors, file)
    try:
        with pytest.raises(ModelFileError, match=rf"{damage}\.safetensors"):
            library.with_lora(*loaded(library), file.name, 1.0, 1.0)
    finally:
        file.unlink()
