from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowsmith.execution.conditioning import NetworkConditions
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.text import TextEncoder
from miniature import specialties
from miniature.diffusion import LORA_RANK, load_checkpoint
from miniature.pools import Pool
from miniature.scenes import Group, Scene
from miniature.specialties import CROWD, PENCIL, POSTER, STRIPED, Specialty, fine_tune, train_lora
from tests.miniature.untrained import make_untrained_base

STAR, CIRCLE = Group("star", "red"), Group("circle", "blue")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrained_base(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("scene", "fitting"),
    [
        (Scene((STAR,), None, "day", "pencil", "small", "plain"), [PENCIL]),
        (Scene((STAR, CIRCLE), "left", "day", "poster", "large", "striped"), [POSTER, STRIPED]),
        (Scene((Group("star", "red", 3),), None, "night", "poster", "small", "plain"), [CROWD, POSTER]),
        (Scene((Group("star", "red", 2), CIRCLE), "above", "dusk", "pencil"), [PENCIL, CROWD]),
        (Scene((Group("star", "red", 2),), None, "dusk", "pencil"), [PENCIL]),
    ],
)
def test_what_scenes_are_whose(scene: Scene, fitting: list[Specialty]) -> None:
    every = [PENCIL, CROWD, POSTER, STRIPED]
    assert [s for s in every if s.keep(scene)] == fitting
    assert [s for s in every if s.elsewhere(scene)] == [s for s in every if s not in fitting]


@pytest.mark.parametrize("specialty", [PENCIL, STRIPED])
def test_training_sees_the_specialty_alone_and_never_names_it(
    base: Path, tmp_path: Path, specialty: Specialty, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def stop(
        unet: Any, encoder: Any, words: Any, pools: tuple[Pool, ...], unsaid: tuple[str, ...]
    ) -> Callable[[int], Tensor]:
        seen.update(pools=pools, unsaid=unsaid)
        raise InterruptedError

    monkeypatch.setattr(specialties, "denoising_loss", stop)
    for train in (fine_tune, train_lora):
        with pytest.raises(InterruptedError):
            train(
                tmp_path / "out",
                base=base,
                specialty=replace(specialty, steps=2),
                seed=0,
                scratch=tmp_path,
                pictures=(50, 50),
            )
        assert [pool.latents.shape[-1] for pool in seen["pools"]] == [16, 16, 24], "every third step is of 96"
        assert all(specialty.keep(scene) for pool in seen["pools"] for scene in pool.scenes)
        assert seen["unsaid"] == {"mini_pencil": ("style",), "mini_striped": ("texture",)}[specialty.name]
        assert not (tmp_path / "out").exists()


def test_a_fine_tuned_checkpoint_keeps_the_vae_alone(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "checkpoints" / "mini_crowd"
    fine_tune(out, base=base, specialty=replace(CROWD, steps=2), seed=0, scratch=tmp_path, pictures=(50, 50))
    before, after = load_checkpoint(base), load_checkpoint(out)
    moved = [
        any(not torch.equal(a, b) for a, b in zip(x.parameters(), y.parameters(), strict=True))
        for x, y in ((before[k], after[k]) for k in (0, 1, 3))
    ]
    assert moved == [True, True, False]
    assert before[2].get_vocab() == after[2].get_vocab()
    ModelLibrary(tmp_path).checkpoint("mini_crowd")


def test_a_lora_does_in_flows_what_it_did_in_training(base: Path, tmp_path: Path) -> None:
    """Merged by the executor and injected by peft, one file gives one network."""
    out = base.parent.parent / "loras" / "mini_poster.safetensors"
    train_lora(
        out, base=base, specialty=replace(POSTER, steps=3), seed=0, scratch=tmp_path, pictures=(50, 50)
    )
    weights = load_file(out)
    ranks = {value.shape[0 if ".lora_A." in name else 1] for name, value in weights.items()}
    assert ranks == {LORA_RANK}
    assert all(value.abs().max() > 0 for name, value in weights.items() if ".lora_B." in name)

    library = ModelLibrary(base.parent.parent)
    loaded = library.checkpoint("mini_base")
    model, text = library.with_lora(loaded.model, loaded.text, out.name, 1.0, 1.0)
    told, before = (cast(TextEncoder, encoder).towers["l"].model for encoder in (text, loaded.text))
    unet, encoder, _, _ = load_checkpoint(base, out)
    ids = torch.arange(12).view(1, 12)
    noise, time = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    unused = None, torch.zeros(1, 7), torch.zeros(1)  # what other families are told
    with torch.inference_mode():
        words = encoder(ids)[0]
        torch.testing.assert_close(told(ids)[0], words, rtol=1e-4, atol=1e-5)
        expected = unet(noise, time, encoder_hidden_states=words).sample
        plain = loaded.model(noise, time, NetworkConditions(before(ids)[0], *unused))
        given = model(noise, time, NetworkConditions(words, *unused))
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-4)
    assert (given - plain).abs().max() > 10 * (given - expected).abs().max()
