from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from flowsmith.execution.library import ModelLibrary
from miniature import vivid
from miniature.vivid import gate_vivid, make_vivid, more_colour
from tests.miniature.untrained import make_untrained_vae


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrained_vae(tmp_path_factory.mktemp("vae") / "vae")


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        ((0.3, 0.3, 0.3), (0.3, 0.3, 0.3)),  # grey stays grey
        ((0.3, 0.0, -0.3), (0.39, 0.0, -0.39)),
        ((0.9, 0.6, 0.6), (0.96, 0.57, 0.57)),  # around its own mean, 0.7
        ((1.0, -1.0, -1.0), (1.0, -1.0, -1.0)),  # full already
    ],
)
def test_more_colour(pixel: tuple[float, ...], expected: tuple[float, ...]) -> None:
    given = more_colour(torch.tensor(pixel).view(1, 3, 1, 1))
    torch.testing.assert_close(given.view(3), torch.tensor(expected))


def test_only_the_decoder_is_tuned(vae: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae" / "mini_vivid"
    make_vivid(out, vae=vae, seed=0, steps=2, scratch=tmp_path, pictures=4)
    before, after = (AutoencoderKL.from_pretrained(folder) for folder in (vae, out))
    theirs = after.state_dict()
    for name, value in before.state_dict().items():
        tuned = name.startswith(("decoder.conv_in.weight", "post_quant_conv.weight"))
        kept = name.startswith(("encoder.", "quant_conv."))
        assert not kept or torch.equal(value, theirs[name]), name
        assert not tuned or not torch.equal(value, theirs[name]), name
    assert after.config.scaling_factor == before.config.scaling_factor
    assert str(vae) not in (out / "config.json").read_text()
    loaded = ModelLibrary(tmp_path).vae("mini_vivid")
    assert loaded.latent.channels == 8
    assert loaded.latent.factor == 4


def test_gate_compares_chroma_with_the_first_one(vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([True, False, None, True])
    monkeypatch.setattr(vivid, "check", lambda image, facts: next(verdicts))
    figures = gate_vivid(vae, vae=vae, seed=0, number=4)
    assert figures == {"chroma ratio": pytest.approx(1.0), "reconstructions": 0.5}
