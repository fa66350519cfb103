"""RescaleCFG and CLIPSetLastLayer: what they change, and that nothing patched is batched with what is not."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ExecutionError, Executor, ModelLibrary, RenderTask
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.nodes import find_node
from flowsmith.execution.prediction import Prediction
from flowsmith.execution.text import TextEncoder
from flowsmith.flows import Flow, Schema
from tests.execution.denoising import denoiser
from tests.execution.running import run, whole
from tests.tiny_world import tiny_graph


def outputs_of_texts(scaled: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
    """A network whose output is the text, reshaped, besides a tenth of what it sees."""
    return text.reshape(scaled.shape) + 0.1 * scaled


def texts(n: int) -> list[Tensor]:
    return list(torch.randn(n, 4, 9, generator=torch.Generator().manual_seed(n)))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_rescaling_is_the_papers_in_terms_of_v(prediction: Prediction) -> None:
    """Equations 15 and 16 of arXiv 2305.08891 on v, written out with signal and noise of unit variance."""
    positive, negative = texts(2)
    x, sigma = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(5)) * 3, 2.5
    signal, noise = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    z = x * signal  # what the network sees
    vs = []
    for text in (positive, negative):
        output = text.reshape(z.shape) + 0.1 * z
        # z = signal * clean + noise * eps and v = signal * eps - noise * clean
        vs.append(output if prediction == "v_prediction" else (output - noise * z) / signal)
    mixed = vs[1] + 6.0 * (vs[0] - vs[1])
    rescaled = mixed * (vs[0].std() / mixed.std())
    final = 0.7 * rescaled + 0.3 * mixed
    expected = signal * z - noise * final
    how = ([positive], [negative], [6.0], (3, 3))
    got = denoiser(outputs_of_texts, prediction, *how, rescale=0.7)(x, sigma)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    plain = denoiser(outputs_of_texts, prediction, *how)(x, sigma)
    assert float((got - plain).norm() / plain.norm()) > 0.1  # so it is no comparison of like and like


def test_rows_are_rescaled_each_by_itself_and_unguided_ones_not_at_all() -> None:
    some = texts(4)
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(6))
    together = denoiser(outputs_of_texts, "epsilon", some[:2], some[2:], [3.0, 1.0], (3, 3), rescale=0.5)
    guess = together(x, 1.5)
    for row, guidance in enumerate((3.0, 1.0)):
        how = ([some[row]], [some[2 + row]], [guidance], (3, 3))
        alone = denoiser(outputs_of_texts, "epsilon", *how, rescale=0.5)
        torch.testing.assert_close(guess[row : row + 1], alone(x[row : row + 1], 1.5))
    plain = denoiser(outputs_of_texts, "epsilon", [some[1]], [some[3]], [1.0], (3, 3))
    torch.testing.assert_close(guess[1:], plain(x[1:], 1.5))


def test_the_patch_shares_weights_and_changes_the_key(models: Path) -> None:
    library = ModelLibrary(models)
    model = library.checkpoint("tiny_a").model
    assert run(library, "RescaleCFG", model=model, multiplier=0.0) is model
    half = run(library, "RescaleCFG", model=model, multiplier=0.5)
    assert half.network is model.network
    other = run(library, "RescaleCFG", model=model, multiplier=0.7)
    last = run(library, "RescaleCFG", model=half, multiplier=0.7)
    assert (other.patches.rescale, last.patches.rescale) == (0.7, 0.7)
    undone = run(library, "RescaleCFG", model=half, multiplier=0.0)
    assert undone.patches.rescale == 0.0
    assert len({one.key for one in (model, half, other)}) == 3
    lora, _ = library.with_lora(half, library.checkpoint("tiny_a").text, "tiny.safetensors", 1.0, 1.0)
    plain, _ = library.with_lora(model, library.checkpoint("tiny_a").text, "tiny.safetensors", 1.0, 1.0)
    assert lora.patches.rescale == 0.5
    assert lora.key != plain.key


def encoded(library: ModelLibrary, clip: TextEncoder, text: str) -> Tensor:
    conditioning: Conditioning = run(library, "CLIPTextEncode", clip=clip, text=text)
    return conditioning.parts[0].states


def test_an_earlier_layer_is_what_a_shorter_encoder_ends_in(models: Path) -> None:
    library = ModelLibrary(models)
    _, clip, _ = whole(library.checkpoint("tiny_a"))
    short = copy.deepcopy(clip.towers["l"].model)
    encoder: Any = getattr(short, "text_model", short)
    del encoder.encoder.layers[-1]
    skipped = run(library, "CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2)
    for text in ("a red star", "", "red star " * 30):
        rows = torch.tensor([chunk.ids for chunk in clip.towers["l"].chunks(text)])
        with torch.inference_mode():
            expected = short(rows).last_hidden_state.flatten(0, 1)
        got = encoded(library, skipped, text)
        torch.testing.assert_close(got, expected)
        assert not torch.allclose(got, encoded(library, clip, text), atol=1e-2)


def test_weights_move_away_from_the_empty_text_of_the_same_layer(models: Path) -> None:
    library = ModelLibrary(models)
    skipped = whole(library.checkpoint("tiny_a"))[1].stopped_at(-2)
    weighted, plain, empty = (encoded(library, skipped, text) for text in ("(re:1.5)", "re", ""))
    torch.testing.assert_close(weighted[1], empty[1] + 1.5 * (plain[1] - empty[1]))


def test_the_encoder_shares_weights_and_changes_its_key(models: Path) -> None:
    library = ModelLibrary(models)
    _, clip, _ = whole(library.checkpoint("tiny_a"))
    assert run(library, "CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-1) is clip
    skipped = run(library, "CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2)
    assert skipped.towers["l"].model is clip.towers["l"].model
    group = find_node("CLIPTextEncode").group
    assert group({"clip": skipped, "text": "x"}) != group({"clip": clip, "text": "x"})
    back = run(library, "CLIPSetLastLayer", clip=skipped, stop_at_clip_layer=-1)
    assert back.towers["l"].layer is None
    _, patched = library.with_lora(library.checkpoint("tiny_a").model, skipped, "tiny.safetensors", 1, 1)
    assert patched is not None
    assert patched.towers["l"].layer == -2
    for layer in (-3, -24):  # more than there are: all of them, as in ComfyUI
        assert run(library, "CLIPSetLastLayer", clip=clip, stop_at_clip_layer=layer) is clip
    for layer in (0, 1):
        with pytest.raises(
            ExecutionError, match=f"={layer}: layers are counted from the last, -1; use -1 or less"
        ):
            run(library, "CLIPSetLastLayer", clip=clip, stop_at_clip_layer=layer)


SCHEMA = Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": ["tiny_a"]})


def patched_flow(multiplier: float | None = None, layer: int | None = None) -> Flow:
    graph = tiny_graph(positive="{prompt}", steps=3, cfg=60.0)
    if multiplier is not None:
        inputs: dict[str, Any] = {"model": ["1", 0], "multiplier": multiplier}
        graph["8"] = {"class_type": "RescaleCFG", "inputs": inputs}
        graph["5"]["inputs"]["model"] = ["8", 0]
    if layer is not None:
        inputs = {"clip": ["1", 1], "stop_at_clip_layer": layer}
        graph["9"] = {"class_type": "CLIPSetLastLayer", "inputs": inputs}
        graph["2"]["inputs"]["clip"] = graph["3"]["inputs"]["clip"] = ["9", 0]
    return Flow.from_template(graph, SCHEMA)


def test_flows_render_beside_others_as_they_do_alone(models: Path) -> None:
    flows = {
        "plain": patched_flow(), "zero": patched_flow(0.0, -1), "rescaled": patched_flow(0.9),
        "more": patched_flow(1.0), "skipped": patched_flow(None, -2), "both": patched_flow(0.9, -2),
    }  # fmt: skip
    tasks = [RenderTask(name, flow, "a red star", 3) for name, flow in flows.items()]
    together = {r.sample_id: r.image for r in Executor(models, SCHEMA, batch_size=8).render(tasks)}
    images: dict[str, Tensor] = {}
    for task in tasks:
        (alone,) = Executor(models, SCHEMA, batch_size=1).render([task])
        image = together[task.sample_id]
        assert image is not None
        assert alone.image is not None
        assert float(((image.int() - alone.image.int()).abs() <= 1).float().mean()) >= 0.999
        images[task.sample_id] = image.int()
    assert int((images["plain"] - images["zero"]).abs().max()) <= 1
    different = {name for name in flows if not int((images["plain"] - images[name]).abs().max()) <= 1}
    assert different == {"rescaled", "more", "skipped", "both"}
