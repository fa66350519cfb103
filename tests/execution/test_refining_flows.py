"""Whole flows through the executor: enlarged by a model, sharpened, encoded again and sampled once more."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from flowsmith.execution import Executor, ModelLibrary, RenderTask
from flowsmith.flows import Flow, Schema
from tests.execution.running import whole
from tests.tiny_world import make_tiny_upscaler, make_tiny_vae, tiny_graph

SCHEMA = Schema.core().restrict(
    choices={
        "CheckpointLoaderSimple.ckpt_name": ["tiny_a"],
        "VAELoader.vae_name": ["own", "gone"],
        "UpscaleModelLoader.model_name": ["x2.safetensors", "../x2.safetensors"],
    }
)


@pytest.fixture(scope="module")
def root(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = shutil.copytree(models, tmp_path_factory.mktemp("refining") / "models")
    make_tiny_upscaler(root / "upscale_models" / "x2.safetensors")
    make_tiny_vae(root / "vae" / "own")
    return root


def refining(**changes: Any) -> dict[str, Any]:
    """Return a graph: 32 x 32, enlarged twice, sharpened, sampled at denoise 0.4, decoded by a VAE of its own."""
    graph = tiny_graph(positive="{prompt}", width=32, height=32)
    graph |= {
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": changes.get("vae_name", "own")}},
        "model": {
            "class_type": "UpscaleModelLoader",
            "inputs": {"model_name": changes.get("model_name", "x2.safetensors")},
        },
        "large": {
            "class_type": "ImageUpscaleWithModel",
            "inputs": {"upscale_model": ["model", 0], "image": ["6", 0]},
        },
        "sharp": {
            "class_type": "ImageSharpen",
            "inputs": {"image": ["large", 0], "sharpen_radius": 1, "sigma": 1.0, "alpha": 0.05},
        },
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["sharp", 0], "vae": ["1", 2]}},
        "again": {
            "class_type": "KSampler",
            "inputs": {**graph["5"]["inputs"], "latent_image": ["latent", 0], "denoise": 0.4},
        },
        "picture": {"class_type": "VAEDecode", "inputs": {"samples": ["again", 0], "vae": ["vae", 0]}},
    }
    graph["7"]["inputs"]["images"] = ["picture", 0]
    return graph


def test_a_refining_flow_is_its_parts_in_a_row(root: Path) -> None:
    from flowsmith.execution.graph import plan_graph
    from flowsmith.execution.interpreter import Interpreter

    flow = Flow.from_template(refining(), SCHEMA)
    (result,) = Executor(root, SCHEMA).render([RenderTask("x", flow, "red", 5)])
    assert result.error is None
    library = ModelLibrary(root)
    # What comes before is a flow that other tests follow by hand; the rest is done here.
    before = {k: v for k, v in refining().items() if k in "1234567"}
    before["7"] = {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}}
    written = Flow.from_template(before, SCHEMA).to_comfyui("red", 5, SCHEMA)
    ((_, outcome),) = Interpreter(library).run([plan_graph(written)])
    with torch.inference_mode():
        large = library.upscaler("x2.safetensors")(outcome.values[0])
        padded = torch.nn.functional.pad(large, (1, 1, 1, 1), mode="reflect")
        weights = torch.tensor([-0.5, 0.0, -0.5]).exp()
        kernel = weights.outer(weights) / weights.outer(weights).sum()
        blur = sum(kernel[y, x] * padded[..., y : y + 64, x : x + 64] for y in range(3) for x in range(3))
        sharp = (large + 0.5 * (large - blur)).clamp(0, 1)
        model, text, vae = whole(library.checkpoint("tiny_a"))
        latent = vae.model.encode(sharp * 2 - 1).latent_dist.mean
        texts = [encoding.states for encoding in text.encode(["red", ""])]
        table, unet = model.table, model.network
        schedule = [table.sigma(t) for t in torch.linspace(999.0, 0.0, 10).tolist()] + [0.0]
        sigmas = schedule[-5:]
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(6))
        x = latent * 0.5 + noise * sigmas[0]  # 0.5 is the checkpoint's scale
        for sigma, target in pairwise(sigmas):
            seen, step = x / (sigma**2 + 1) ** 0.5, table.timestep(sigma)
            positive, negative = (unet(seen, step, text[None]).sample for text in texts)
            x = x + (negative + 3.0 * (positive - negative)) * (target - sigma)
        picture = (library.vae("own").model.decode(x / 0.5).sample[0] / 2 + 0.5).clamp(0, 1)
    assert result.image is not None
    assert result.image.shape == picture.shape == (3, 32, 32)  # 16 latents of 2 pixels each
    apart = (result.image.int() - (picture * 255).to(torch.uint8).int()).abs()
    assert int(apart.max()) <= 1
    assert result.image.float().std() > 5


def test_flows_that_share_a_start_render_alone_as_together(root: Path) -> None:
    flow = Flow.from_template(refining(), SCHEMA)
    tasks = [RenderTask(str(k), flow, "red", 10 + k) for k in range(3)]
    together = {r.sample_id: r.image for r in Executor(root, SCHEMA).render(tasks)}
    for task in tasks:
        (alone,) = Executor(root, SCHEMA, batch_size=1).render([task])
        image = together[task.sample_id]
        assert image is not None
        assert alone.image is not None
        assert float(((image.int() - alone.image.int()).abs() <= 1).float().mean()) >= 0.999


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vae_name": "gone"}, "vae/gone is not in the library; use one of: own (in VAELoader)"),
        ({"model_name": "../x2.safetensors"}, "lies outside upscale_models/"),
    ],
)
def test_failures_are_told_and_lose_nothing(root: Path, changes: dict[str, Any], says: str) -> None:
    bad = RenderTask("bad", Flow.from_template(refining(**changes), SCHEMA), "red", 1)
    good = RenderTask("good", Flow.from_template(refining(), SCHEMA), "red", 1)
    results = {result.sample_id: result for result in Executor(root, SCHEMA).render([bad, good])}
    assert results["good"].error is None
    assert says in str(results["bad"].error)
