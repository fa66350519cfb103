"""Checkpoints of every family in one file of the authors' layout, against the models that they were written from."""

from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ModelLibrary
from flowsmith.execution.conditioning import NetworkConditions, TextEncoding
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.text import TextEncoder
from flowsmith.execution.vae import Vae
from tests.execution.layouts.references import open_clip_text, transformers_clip, transformers_t5
from tests.execution.layouts.small import Small, small_checkpoint, write, write_t5_tokenizer
from tests.execution.running import evaluate

FAMILIES = ("sd1", "sd2", "sdxl", "sdxl_refiner", "sd3", "flux")
Loaded = tuple[DiffusionModel, TextEncoder, Vae]


@pytest.fixture(scope="module")
def made() -> dict[str, Small]:
    return {family: small_checkpoint(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def loaded(made: dict[str, Small], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    """Every checkpoint, through CheckpointLoaderSimple."""
    root = tmp_path_factory.mktemp("checkpoints")
    write_t5_tokenizer(root / "text_encoders" / "t5_tokenizer")
    for family, small in made.items():
        write(small, root / "checkpoints" / f"{family}.safetensors")
    library = ModelLibrary(root)
    nodes = {
        family: {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": f"{family}.safetensors"}}
        for family in FAMILIES
    }
    return evaluate(library, nodes, FAMILIES)


def told(text: int, pooled: int, seed: int = 0) -> NetworkConditions:
    generator = torch.Generator().manual_seed(seed)
    return NetworkConditions(
        torch.randn(2, 11, text, generator=generator),
        torch.randn(2, pooled, generator=generator),
        torch.tensor([[64.0, 48, 3, 5, 70, 50, 6], [96.0, 40, 0, 8, 90, 30, 2.5]]),
        torch.tensor([3.5, 2.0]),
    )


def latents(channels: int, height: int = 8, width: int = 6) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sdxl_refiner"])
def test_unets_compute_what_they_did(made: dict[str, Small], loaded: dict[str, Loaded], family: str) -> None:
    network, model = made[family].network, loaded[family][0]
    assert model.family == family
    says, step = told(network.config.cross_attention_dim, 64), torch.tensor(300)
    x, kept = latents(4), {"sdxl": [0, 1, 2, 3, 4, 5], "sdxl_refiner": [0, 1, 2, 3, 6]}.get(family)
    added = {} if kept is None else {"text_embeds": says.pooled, "time_ids": says.sizes[:, kept]}
    with torch.inference_mode():
        expected = network(x, step, encoder_hidden_states=says.states, added_cond_kwargs=added).sample
        got = model(x, step, says)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert float(expected.std()) > 0.1


def test_stable_diffusion_3_computes_what_it_did(made: dict[str, Small], loaded: dict[str, Loaded]) -> None:
    network, model = made["sd3"].network, loaded["sd3"][0]
    says, x, step = told(96, 96), latents(16), torch.tensor(412.5)
    with torch.inference_mode():
        expected = network(x, says.states, says.pooled, step.expand(2)).sample
        torch.testing.assert_close(model(x, step, says), expected, rtol=1e-5, atol=1e-5)
        odd = model(latents(16, 7, 5), step, says)
        filled = torch.nn.functional.pad(latents(16, 7, 5), (0, 1, 0, 1), mode="circular")
        whole = network(filled, says.states, says.pooled, step.expand(2)).sample
    torch.testing.assert_close(odd, whole[..., :7, :5], rtol=1e-5, atol=1e-5)
    assert float(expected.std()) > 0.1
    assert (model.family, model.prediction, model.table.maximum) == ("sd3", "flow", 1.0)
    assert model.table.sigma(500) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


def test_flux_computes_what_it_did(made: dict[str, Small], loaded: dict[str, Loaded]) -> None:
    """Packed as in diffusers' FluxPipeline: the four latents of a token channel by channel."""
    network, model = made["flux"].network, loaded["flux"][0]
    says, x, step = told(96, 32), latents(16), torch.tensor(412.5)
    packed = x.view(2, 16, 4, 2, 3, 2).permute(0, 2, 4, 1, 3, 5).reshape(2, 12, 64)
    places = torch.tensor([[0.0, row, column] for row in range(4) for column in range(3)])
    with torch.inference_mode():
        output = network(
            packed,
            encoder_hidden_states=says.states,
            pooled_projections=says.pooled,
            timestep=torch.tensor([0.4125, 0.4125]),
            img_ids=places,
            txt_ids=torch.zeros(11, 3),
            guidance=says.guidance,
        ).sample
        expected = output.view(2, 4, 3, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(2, 16, 8, 6)
        got = model(x, step, says)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert float(expected.std()) > 0.1
    assert (model.family, model.prediction, model.latent.channels) == ("flux", "flow", 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_vaes_compute_what_they_did(made: dict[str, Small], loaded: dict[str, Loaded], family: str) -> None:
    network, (model, _, vae) = made[family].vae, loaded[family]
    pixels = torch.rand(1, 3, 12, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        mean = network.encode(pixels * 2 - 1).latent_dist.mean
        picture = (network.decode(mean).sample / 2 + 0.5).clamp(0, 1)
        encoded = vae.encode(pixels)
        torch.testing.assert_close(encoded, mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(vae.decode(mean), picture, rtol=1e-5, atol=1e-5)
    scales = {
        "sdxl": (0.13025, 0),
        "sdxl_refiner": (0.13025, 0),
        "sd3": (1.5305, 0.0609),
        "flux": (0.3611, 0.1159),
    }
    assert (model.latent.scale, model.latent.shift) == scales.get(family, (0.18215, 0))
    assert model.latent.factor == 2


def encoded(text: TextEncoder, words: Any) -> TextEncoding:
    with torch.inference_mode():
        (encoding,) = text.encode([words])
    return encoding


def close(got: Tensor | None, expected: Tensor) -> None:
    assert got is not None
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


WORDS = "a photo of a cat"


def test_texts_of_stable_diffusion_1_and_2(made: dict[str, Small], loaded: dict[str, Loaded]) -> None:
    """The first takes CLIP-L's own output, the second OpenCLIP-H's last layer but one, normed; it pads with 0."""
    first = transformers_clip(made["sd1"].texts["l"], WORDS)
    close(encoded(loaded["sd1"][1], WORDS).states, first["last"])
    close(encoded(loaded["sd1"][1], WORDS).pooled, first["pooled"])
    second = open_clip_text(made["sd2"].texts["h"], WORDS)
    close(encoded(loaded["sd2"][1], WORDS).states, second["normed"])
    close(encoded(loaded["sd2"][1], WORDS).pooled, second["projected"])


def test_texts_of_sdxl(made: dict[str, Small], loaded: dict[str, Loaded]) -> None:
    """Both encoders' last layers but one, not normed, side by side; pooled is bigG's. Empty ones are encoded too."""
    for words in (WORDS, ""):
        clip_l = transformers_clip(made["sdxl"].texts["l"], words)
        clip_g = open_clip_text(made["sdxl"].texts["g"], words)
        got = encoded(loaded["sdxl"][1], words)
        close(got.states, torch.cat([clip_l["penultimate"], clip_g["penultimate"]], -1))
        close(got.pooled, clip_g["projected"])
        refiner = open_clip_text(made["sdxl_refiner"].texts["g"], words)
        close(encoded(loaded["sdxl_refiner"][1], words).states, refiner["penultimate"])
        close(encoded(loaded["sdxl_refiner"][1], words).pooled, refiner["projected"])


def test_a_text_for_each_of_sdxls_encoders(made: dict[str, Small], loaded: dict[str, Loaded]) -> None:
    """The shorter one is filled up with an empty chunk."""
    long = " ".join("abcdefghij" * 8)
    got = encoded(loaded["sdxl"][1], {"l": WORDS, "g": long})
    clip_l = [transformers_clip(made["sdxl"].texts["l"], words)["penultimate"] for words in (WORDS, "")]
    assert got.states.shape == (154, 96)
    close(got.states[:, :32], torch.cat(clip_l))
    close(got.pooled, open_clip_text(made["sdxl"].texts["g"], long[:149])["projected"])  # of the first chunk


def test_texts_of_stable_diffusion_3(made: dict[str, Small], loaded: dict[str, Loaded]) -> None:
    """CLIPs side by side and filled up with zeros, then T5's tokens; pooled are both, L's without its projection."""
    texts, text = made["sd3"].texts, loaded["sd3"][1]
    clip_l, clip_g = transformers_clip(texts["l"], "red cat"), transformers_clip(texts["g"], "red cat", 0)
    t5 = transformers_t5(
        texts["t5xxl"], text.towers["t5xxl"].tokenizer.encode("red cat", add_special_tokens=False), 77
    )
    beside = torch.cat([clip_l["penultimate"], clip_g["penultimate"]], -1)
    got = encoded(text, "red cat")
    close(got.states, torch.cat([beside, t5]))
    close(got.pooled, torch.cat([clip_l["pooled"], clip_g["projected"]]))
    alone = encoded(text, {"g": "red cat"})
    close(alone.states, torch.cat([torch.zeros(77, 32), clip_g["penultimate"]], -1))
    close(alone.pooled, torch.cat([torch.zeros(32), clip_g["projected"]]))


def test_texts_of_flux(made: dict[str, Small], loaded: dict[str, Loaded]) -> None:
    """T5's states of at least 256 tokens, longer for longer texts, and CLIP-L's pooled one."""
    texts, text = made["flux"].texts, loaded["flux"][1]
    tokenizer = text.towers["t5xxl"].tokenizer
    for words in ("red cat", "x" * 300):
        ids = tokenizer.encode(words, add_special_tokens=False)
        expected = transformers_t5(texts["t5xxl"], ids, max(256, len(ids) + 1))
        close(encoded(text, words).states, expected)
    assert len(ids) > 256
    close(encoded(text, {"l": WORDS, "t5xxl": ""}).pooled, transformers_clip(texts["l"], WORDS)["pooled"])


def test_weights_and_clip_skip_reach_every_encoder(made: dict[str, Small], loaded: dict[str, Loaded]) -> None:
    texts, text = made["sdxl"].texts, loaded["sdxl"][1]
    halved = encoded(text, f"({WORDS}:0.5)")
    plain, empty = encoded(text, WORDS), encoded(text, "")
    expected = empty.states + 0.5 * (plain.states - empty.states)
    rows = slice(1, 6)  # start and end keep their weight
    close(halved.states[rows], expected[rows])
    close(halved.states[0], plain.states[0])
    close(halved.pooled, open_clip_text(texts["g"], WORDS)["projected"])  # as if nothing were weighted
    deeper = encoded(text.stopped_at(-3), WORDS).states
    with torch.inference_mode():
        hidden = texts["l"](clip_ids_of(WORDS), output_hidden_states=True).hidden_states
    close(deeper[:, :32], hidden[-3][0])
    beyond = encoded(text.stopped_at(-9), WORDS).states  # more than there are: the network's own output
    close(beyond[:, :32], transformers_clip(texts["l"], WORDS)["last"])
    close(beyond[:, 32:], open_clip_text(texts["g"], WORDS)["last"])
    assert text.stopped_at(-2) is text


def clip_ids_of(words: str) -> Tensor:
    from tests.execution.layouts.references import clip_ids

    return clip_ids(words, 49407)
