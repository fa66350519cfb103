"""Where the authors' modules are in diffusers' networks, against diffusers' own conversion of whole checkpoints."""

from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_unet_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from torch import Tensor

from flowsmith.execution.layouts.flux import flux_places, rename_flux
from flowsmith.execution.layouts.mmdit import mmdit_places
from flowsmith.execution.layouts.unet import unet_places
from tests.execution.layouts import small
from tests.execution.layouts.originals import original_flux, original_mmdit, original_unet

FLUX_WIDTH = 3072  # the only one that diffusers' conversion knows


def numbered(rows: dict[str, int]) -> dict[str, Tensor]:
    """Give each of the named tensors as many rows, all of one column, and no two rows the same number."""
    starts = torch.tensor([0, *rows.values()]).cumsum(0)
    return {
        name: torch.arange(int(start), int(start) + count, dtype=torch.float64).view(-1, 1)
        for (name, count), start in zip(rows.items(), starts[:-1], strict=True)
    }


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sdxl_refiner"])
def test_unets(family: str) -> None:
    network: Any = small.unet(family)
    names = [name for name, _ in network.named_modules()]
    places = dict(unet_places(names, len(network.config.block_out_channels), 1))
    original = original_unet(network.state_dict(), 1)
    tensors = {f"model.diffusion_model.{name}": name for name in original}
    converted: dict[str, Any] = convert_ldm_unet_checkpoint(tensors, dict(network.config))
    assert len(converted) == len(original)
    for there, here in converted.items():
        module, here = there.rpartition(".")[0], here.rpartition(".")[0]
        assert places[here].modules == (module,)


def test_flux() -> None:
    """Every row of every tensor, at full width and one block of each kind."""
    network = small.flux()
    shapes = original_flux(network.state_dict(), 2, 2)
    wide = FLUX_WIDTH // 64
    rows = {
        name: tensor.shape[0] * wide
        for name, tensor in shapes.items()
        if "_blocks.1." not in name and not name.endswith("scale")
    }
    scales = {name: 32 for name in shapes if name.endswith("scale") and "_blocks.1." not in name}
    tensors = numbered(rows | scales)
    expected = convert_flux_transformer_checkpoint_to_diffusers(dict(tensors))
    got = rename_flux(tensors)
    assert set(got) == set(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_stable_diffusion_3() -> None:
    network = small.mmdit((0,), "rms_norm")
    shapes = original_mmdit(network.state_dict(), 2)
    tensors = numbered({name: tensor.shape[0] for name, tensor in shapes.items()})
    expected = convert_sd3_transformer_checkpoint_to_diffusers(dict(tensors))
    got = {
        f"{module}.weight": part
        for name, place in mmdit_places(2)
        if f"{name}.weight" in tensors
        for module, part in zip(place.modules, place.split(tensors[f"{name}.weight"]), strict=True)
    }
    assert all(torch.equal(part, expected[name]) for name, part in got.items())
    norms = {name for name in expected if "norm_" in name and "norm_out" not in name}
    weights = {name for name in expected if name.endswith(".weight")}
    assert set(got) == weights - norms


def test_no_module_has_two_places() -> None:
    for places in (flux_places(19, 38), mmdit_places(24)):
        named = [(name, module) for name, place in places for module in place.modules]
        assert len({module for _, module in named}) == len(named)
