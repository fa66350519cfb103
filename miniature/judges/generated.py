"""Pictures that the base checkpoint makes of prompts through a few flows, with the scene read back from each.

In use, judges meet generated pictures only, so they must have learned from some. What such a picture shows is what
`read_scene` makes of it, not what the prompt asked for; one that cannot be read with confidence has no scene.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from flowsmith.execution import Executor, RenderTask
from flowsmith.files import atomic_write
from flowsmith.flows import Domain, Flow, Schema
from flowsmith.prompts import Prompt, Split
from miniature.captions import TASKS, sample_prompt
from miniature.checker import check
from miniature.judges.faults import Picture
from miniature.reading import read_scene
from miniature.scenes import Scene
from miniature.training import fast_type

_WORLD = Path(__file__).parents[1]
# What differs from the default flow: few settings, so that batches stay large, but unlike mistakes.
FLOWS: dict[str, dict[str, Any]] = {
    "default": {},
    "hasty": {"steps": 4},
    "unguided": {"steps": 10, "cfg": 1.0},
    "overguided": {"steps": 10, "cfg": 8.0},
    "careful": {"steps": 12, "cfg": 2.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
    "larger": {"steps": 8, "width": 96, "height": 96},
}
PICTURES, RECORDS = "pictures.safetensors", "pictures.json"


@dataclass(frozen=True)
class Generated:
    """One generated picture.

    Attributes:
        picture: side x side x 3, as it was made.
        flow: Name of what made it.
        prompt: What was asked for.
        scene: What it shows; None if that cannot be read.
        right: The checker's verdict on it; None if it would not say.
    """

    picture: Picture
    flow: str
    prompt: Prompt
    scene: Scene | None
    right: bool | None


def make_generated(
    out: Path,
    *,
    models: Path,
    seed: int,
    number: int = 480,
    split: Split = "train",
    flows: dict[str, dict[str, Any]] = FLOWS,
) -> None:
    """Render every prompt with every flow and write pictures, prompts and scenes as one folder.

    Args:
        out: Folder to write.
        models: Root of the weights, with the base checkpoint.
        seed: Of prompts and noise.
        number: Of prompts; the six tasks take turns.
        split: Of the prompts.
        flows: Name -> what differs from the default flow.

    Raises:
        RuntimeError: A picture could not be rendered.
    """
    rng = np.random.default_rng(seed)
    prompts = [sample_prompt(TASKS[i % len(TASKS)], i, split, rng) for i in range(number)]
    pictures: dict[str, list[Tensor]] = defaultdict(list)
    records = []
    for one in render_prompts(
        prompts, {name: flow_of(**changes) for name, changes in flows.items()}, models, seed
    ):
        side = str(len(one.picture))
        records.append(
            {
                "flow": one.flow,
                "side": side,
                "row": len(pictures[side]),
                "prompt": {"id": one.prompt.id, "text": one.prompt.text, "task": one.prompt.task},
                "facts": one.prompt.facts,
                "scene": _to_json(one.scene),
                "right": one.right,
            }
        )
        pictures[side].append(torch.from_numpy(one.picture))
    with atomic_write(out) as folder:
        folder.mkdir()
        save_file({side: torch.stack(some) for side, some in pictures.items()}, folder / PICTURES)
        (folder / RECORDS).write_text(json.dumps({"split": split, "pictures": records}) + "\n")


def render_prompts(
    prompts: list[Prompt], flows: dict[str, Flow], models: Path, seed: int, batch: int = 30
) -> list[Generated]:
    """Render every prompt with every flow, all pictures of a prompt from one seed, and read what they show.

    Raises:
        RuntimeError: A picture could not be rendered.
    """
    asked = {f"{i}/{name}": (i, name) for i in range(len(prompts)) for name in flows}
    tasks = [
        RenderTask(key, flows[name], prompts[i].text, 1000 * seed + i) for key, (i, name) in asked.items()
    ]
    found: dict[str, Generated] = {}
    for result in Executor(models, batch_size=batch, dtype=fast_type()).render(tasks):
        i, name = asked[result.sample_id]
        if result.image is None:
            raise RuntimeError(
                f"flow {name!r} cannot be rendered with the weights in {models}: {result.error}"
            )
        picture = np.ascontiguousarray(result.image.permute(1, 2, 0).numpy())
        found[result.sample_id] = Generated(
            picture, name, prompts[i], read_scene(picture), check(picture, prompts[i].facts)
        )
    return [found[key] for key in asked]


def flow_of(*, sharpen: float = 0.0, **changes: Any) -> Flow:
    """Return the default flow with other settings, and sharpened with this alpha if it is not 0.

    Args:
        sharpen: ImageSharpen's alpha.
        changes: Inputs of the sampling node or of the empty latent.

    Raises:
        ValueError: The default flow has no such input.
    """
    graph = json.loads((_WORLD / "flows" / "default.json").read_text(encoding="utf-8"))
    for name, value in changes.items():
        inputs = [node["inputs"] for node in graph.values() if name in node["inputs"]]
        if not inputs:
            raise ValueError(
                f"{name}={value!r}: the default flow has no such input; name one of its nodes' inputs"
            )
        for those in inputs:
            those[name] = value
    if sharpen:
        save = next(node for node in graph.values() if node["class_type"] == "SaveImage")
        added = {"image": save["inputs"]["images"], "sharpen_radius": 1, "sigma": 1.0, "alpha": sharpen}
        graph["sharpen"] = {"class_type": "ImageSharpen", "inputs": added}
        save["inputs"]["images"] = ["sharpen", 0]
    return Flow.from_template(graph, Domain.from_yaml(_WORLD / "domain.yaml").restrict(Schema.core()))


def gate_generated(folder: Path) -> dict[str, float]:
    """Return how many pictures there are, and which shares are right and can be read, over all and by flow."""
    records = json.loads((folder / RECORDS).read_text())["pictures"]
    flows = sorted({record["flow"] for record in records})
    shares = {
        flow: [record["scene"] is not None for record in records if flow in ("all", record["flow"])]
        for flow in ["all", *flows]
    }
    return {
        "pictures": float(len(records)),
        "right": sum(record["right"] is True for record in records) / len(records),
        "readable": sum(shares["all"]) / len(records),
        **{f"readable, {flow}": sum(shares[flow]) / len(shares[flow]) for flow in flows},
    }


def _to_json(scene: Scene | None) -> dict[str, Any] | None:
    return {**vars(scene), "groups": [vars(group) for group in scene.groups]} if scene else None
