import pytest
import torch

from flowsmith.rewards.values import ordered_table, token_value, value_positions
from tests.rewards.world import codec

TOKENS = (
    "KSampler",
    "KSampler.steps=4",
    "KSampler.steps=8",
    "KSampler.steps=30",
    "KSampler.name=euler",
    "ref:0",
)


@pytest.mark.parametrize(
    ("token", "parsed"),
    [
        ("KSampler.steps=20", ("KSampler.steps", 20.0)),
        ("KSampler.denoise=0.45", ("KSampler.denoise", 0.45)),
        ("KSampler.sampler_name=euler", ("KSampler.sampler_name", None)),
        ('positive="{prompt}, 3=4"', ("positive", None)),
        ("X.y=inf", ("X.y", None)),
        ("X.y=nan", ("X.y", None)),
        ("VAEDecode", ("VAEDecode", None)),
        ("ref:3", ("ref:3", None)),
    ],
)
def test_token_value(token: str, parsed: tuple[str, float | None]) -> None:
    assert token_value(token) == parsed


def test_positions_by_hand() -> None:
    assert value_positions(TOKENS) == [None, -1.0, 0.0, 1.0, None, None]
    assert value_positions(["a=7"]) == [-1.0]  # the only value of its input


def test_the_codecs_numbers_are_found_and_its_choices_are_not() -> None:
    positions = dict(zip(codec().vocabulary, value_positions(codec().vocabulary), strict=True))
    assert positions["KSampler.steps=4"] == -1
    assert positions["KSampler.steps=30"] == 1
    assert positions["KSampler.sampler_name=euler"] is None
    assert positions["VAEDecode"] is None


def test_neighbouring_numbers_are_nearest() -> None:
    tokens = [*(f"K.steps={i}" for i in range(10)), *(f"K.cfg={i}" for i in range(10))]
    table = ordered_table(tokens, 64, torch.Generator().manual_seed(0))
    distance = torch.cdist(table, table)
    for i in range(1, 9):
        assert distance[0, i] < distance[0, i + 1]
        assert distance[i, 10:].min() > distance[i, i - 1]  # another input is further than the next value
    assert float(table.square().mean()) == pytest.approx(1, abs=0.25)


def test_choices_of_an_input_are_alike_but_not_equal() -> None:
    tokens = ("K.name=a", "K.name=b", "L.name=a")
    table = ordered_table(tokens, 512, torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.cosine_similarity(table[0], table[1:], dim=-1)
    assert float(cosine[0]) == pytest.approx(0.5, abs=0.1)
    assert float(cosine[1]) == pytest.approx(0, abs=0.1)
