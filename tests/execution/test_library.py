import json
import shutil
from pathlib import Path

import pytest
import torch

from flowsmith.execution import ExecutionError, ModelFileError, ModelLibrary, ModelNameError
from flowsmith.execution.cache import Cache, module_bytes
from flowsmith.execution.conditioning import NetworkConditions
from flowsmith.execution.dtypes import Dtypes
from flowsmith.execution.residency import Residency
from tests.execution.running import whole
from tests.tiny_world import make_tiny_vae


def test_names_and_hashes(models: Path) -> None:
    library = ModelLibrary(models)
    assert library.names("checkpoints") == ["tiny_a", "tiny_b"]
    assert "tiny.safetensors" in library.names("loras")
    hashes = library.weight_hashes
    assert {"checkpoints/tiny_a", "checkpoints/tiny_b", "loras/tiny.safetensors"} <= hashes.keys()
    assert hashes["checkpoints/tiny_a"] != hashes["checkpoints/tiny_b"]


@pytest.mark.parametrize(
    "name",
    ["../tiny_a", "tiny_a/../../x", "/etc/passwd", "C:\\x", "..\\x", "\\x", "", ".", "a\0b", "sub/../tiny_a"],
)
def test_names_stay_inside_their_folder(models: Path, name: str) -> None:
    with pytest.raises(ModelNameError, match="inside that folder"):
        ModelLibrary(models).path("checkpoints", name)


def test_missing_name_lists_what_is_there(models: Path) -> None:
    with pytest.raises(ModelNameError, match=r"tiny_c.*tiny_a, tiny_b"):
        ModelLibrary(models).checkpoint("tiny_c")


def test_checkpoint_says_what_its_latents_are(models: Path) -> None:
    checkpoint = ModelLibrary(models).checkpoint("tiny_a")
    latent = checkpoint.model.latent
    text, vae = checkpoint.text, checkpoint.vae
    assert text is not None
    assert vae is not None
    assert (latent.channels, latent.factor, latent.scale, text.towers["l"].framing.length) == (4, 4, 0.5, 32)
    x = torch.randn(2, 3)
    torch.testing.assert_close(latent.out_of_model(latent.into_model(x)), x)
    assert vae.decode(torch.zeros(1, 4, 8, 6)).shape == (1, 3, 32, 24)


def test_models_in_use_are_kept_within_the_bound(models: Path) -> None:
    roomy = ModelLibrary(models)
    first = roomy.checkpoint("tiny_a")
    roomy.checkpoint("tiny_b")
    assert roomy.checkpoint("tiny_a") is first
    assert first.text is not None
    assert first.vae is not None
    size = module_bytes(first.model.network, first.text.towers["l"].model, first.vae.model)
    tight = ModelLibrary(models, max_bytes=int(size * 1.5))
    first = tight.checkpoint("tiny_a")
    tight.checkpoint("tiny_b")
    assert tight.checkpoint("tiny_a") is not first


def test_all_kinds_share_one_budget(models: Path, tmp_path: Path) -> None:
    """What is used last is kept: an autoencoder of its own takes the place of a checkpoint."""
    (tmp_path / "checkpoints").symlink_to(models / "checkpoints")
    make_tiny_vae(tmp_path / "vae" / "own")
    model, text, vae = whole(ModelLibrary(tmp_path).checkpoint("tiny_a"))
    size = module_bytes(model.network, text.towers["l"].model, vae.model)
    own = module_bytes(ModelLibrary(tmp_path).vae("own").model)
    library = ModelLibrary(tmp_path, max_bytes=2 * size + own - 1)
    first, second = library.checkpoint("tiny_a"), library.checkpoint("tiny_b")
    assert library.checkpoint("tiny_a") is first
    autoencoder = library.vae("own")  # one byte too many: "tiny_b" was unused for longest
    assert library.checkpoint("tiny_a") is first
    assert library.vae("own") is autoencoder
    assert library.checkpoint("tiny_b") is not second


def test_a_checkpoint_is_in_use_while_its_patched_copy_is(models: Path) -> None:
    model, text, vae = whole(ModelLibrary(models).checkpoint("tiny_a"))
    size = module_bytes(model.network, text.towers["l"].model, vae.model)
    library = ModelLibrary(models, max_bytes=int(size * 2.5))
    first = library.checkpoint("tiny_a")
    library.checkpoint("tiny_b")
    library.with_lora(first.model, None, "tiny.safetensors", 1.0)  # of "tiny_a", so "tiny_b" is the older one
    library.with_lora(first.model, None, "tiny.safetensors", 2.0)
    tight = library._loaded
    tight.put("filler", (None, size))
    assert "tiny_a" in tight
    assert "tiny_b" not in tight


def test_networks_wait_on_the_cpu_and_compute_the_same(models: Path) -> None:
    """With room for one network on the device, each is brought when it is used; here the device is the CPU too."""
    plain, moving = ModelLibrary(models), ModelLibrary(models)
    tight = Residency(torch.device("cpu"), 1)
    moving._fetch = tight.fetch
    pictures = []
    for library in (plain, moving):
        model, text, vae = whole(library.checkpoint("tiny_a"))
        patched, changed = library.with_lora(model, text, "tiny.safetensors", 0.8, 0.6)
        assert changed is not None
        with torch.inference_mode():
            states = [encoder.encode(["red"])[0].states for encoder in (text, changed, text)]
            x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            for one, encoded in zip((model, patched, model), states, strict=True):
                told = NetworkConditions(encoded[None], None, torch.zeros(1, 7), torch.zeros(1))
                x = one(x, torch.tensor(5), told)
            pictures.append(vae.decode(x))
        networks = [model.network, patched.network, text.towers["l"].model, vae.model]
    assert torch.equal(*pictures)
    assert tight.bytes == module_bytes(networks[-1])  # only the last one used is there


def test_number_types() -> None:
    half, wide, full = torch.float16, torch.bfloat16, torch.float32
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert Dtypes.on(cpu) == Dtypes(full, full, full, full)
    assert Dtypes.on(cpu, wide) == Dtypes(wide, wide, full, wide)
    assert Dtypes.on(cuda, wide) == Dtypes(wide, wide, full, wide)
    assert Dtypes.on(cpu, half) == Dtypes(half, wide, full, wide)  # SDXL's VAE and T5 overflow in float16
    with pytest.MonkeyPatch.context() as patch:
        for able, otherwise in ((True, wide), (False, full)):
            patch.setattr(torch.cuda, "is_bf16_supported", lambda able=able: able)
            assert Dtypes.on(cuda) == Dtypes(half, otherwise, full, otherwise)


def test_cache_forgets_what_was_used_longest_ago() -> None:
    cache: Cache[int] = Cache(10, lambda size: size)
    for key, size in (("a", 4), ("b", 4)):
        cache.put(key, size)
    cache.get("a")
    cache.put("c", 4)
    assert ("a" in cache, "b" in cache, cache.bytes) == (True, False, 8)
    cache.put("huge", 50)
    assert (len(cache), cache.get("huge")) == (1, 50)
    cache.put("huge", 3)
    assert cache.bytes == 3


def damaged(models: Path, folder: Path, file: str, damage: str) -> ModelLibrary:
    shutil.copytree(models / "checkpoints" / "tiny_a", folder / "checkpoints" / "hurt")
    path = folder / "checkpoints" / "hurt" / file
    if damage == "gone":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "garbage":
        path.write_bytes(b"\x80\x04 not a model")
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | json.loads(damage)))
    return ModelLibrary(folder)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "truncated"),
        ("vae/diffusion_pytorch_model.safetensors", "garbage"),
        ("text_encoder/model.safetensors", "gone"),
        ("unet/config.json", "garbage"),
        ("unet/config.json", '{"block_out_channels": [8, 32]}'),
        ("vae/config.json", '{"_class_name": "AutoencoderDC"}'),
        ("tokenizer/vocab.json", "garbage"),
        ("scheduler/scheduler_config.json", '{"prediction_type": "sample"}'),
        ("scheduler/scheduler_config.json", '{"beta_schedule": "squaredcos_cap_v2"}'),
    ],
)
def test_broken_parts_are_named(models: Path, tmp_path: Path, file: str, damage: str) -> None:
    library = damaged(models, tmp_path, file, damage)
    with pytest.raises(ModelFileError, match=f"hurt/{file.split('/')[0]}"):
        library.checkpoint("hurt")
    with pytest.raises(ExecutionError):  # and nothing half loaded is kept
        library.checkpoint("hurt")


def test_scheduler_config_sets_prediction_and_betas(models: Path, tmp_path: Path) -> None:
    change = (
        '{"prediction_type": "v_prediction", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}'
    )
    library = damaged(models, tmp_path, "scheduler/scheduler_config.json", change)
    model = library.checkpoint("hurt").model
    assert model.prediction == "v_prediction"
    assert model.table.minimum**2 == pytest.approx(0.0001 / 0.9999, rel=1e-5)
