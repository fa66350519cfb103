from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.model_costs import Cost, cost, run


def test_operations_and_live_bytes_by_hand() -> None:
    with torch.device("meta"):
        layers = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
        x = torch.empty(3, 4)
        operations, live = run(layers, lambda: layers(x))
    assert operations == 2 * 3 * (4 * 8 + 8 * 2)
    assert live == 4 * 3 * (8 + 8)  # the inner layer before and after ReLU; input and weights are not counted


def test_attention_counts_its_products_and_keeps_no_matrix() -> None:
    with torch.device("meta"):
        query, key = torch.empty(2, 3, 50, 8), torch.empty(2, 3, 70, 8)
        operations, live = run(nn.Identity(), lambda: F.scaled_dot_product_attention(query, key, key))
    assert operations == 2 * 2 * 2 * 3 * 50 * 70 * 8
    assert live == 4 * 2 * 3 * 50 * 8
    rows = torch.randn(1, 1, 2, 4)
    assert F.scaled_dot_product_attention(rows, rows, rows).std() > 0  # the plain one is back


def test_a_small_unet() -> None:
    from diffusers import UNet2DConditionModel

    def build() -> nn.Module:
        network: nn.Module = UNet2DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
        )
        return network

    made = cost("small", "sd1", 64, build)
    assert made.network_parameters == sum(p.numel() for p in build().parameters())
    assert made.text_parameters == pytest.approx(123e6, rel=0.01)  # CLIP-L
    assert made.calls == 40
    larger = cost("small", "sd1", 128, build)
    assert 3.9 < larger.call_tflop / made.call_tflop < 5  # four times the places; attention grows faster
    assert 3.9 < larger.decode_tflop / made.decode_tflop < 5


def test_seconds() -> None:
    one = Cost("x", 64, 1, 1, 1, 1, call_tflop=2.0, calls=40, decode_tflop=4.0, call_gib=1, decode_gib=1)
    assert one.seconds(100e12) == pytest.approx((40 * 2 + 4) / 40)


def test_documented_figures_are_the_printed_ones() -> None:
    """docs/models.md quotes the table; its counts of parameters follow from the published sizes alone."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for row in (
        "| Stable Diffusion 1 | 512² | 0.86 B",
        "| SDXL | 1024² | 2.57 B",
        "| Flux.1 dev | 1024² | 11.90 B",
    ):
        assert row in text
