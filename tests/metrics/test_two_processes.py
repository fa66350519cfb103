"""The mean over two real processes with uneven shares is the mean over all samples."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from flowsmith.metrics import (
    TASKS,
    AestheticScore,
    ClipScore,
    GenEval,
    GenEvalChecker,
    ImageBatch,
    ImageReward,
    Judge,
    PickScore,
    PreferenceScore,
)
from flowsmith.metrics.geneval.detector import InstanceDetector
from flowsmith.metrics.published import random_models as models
from flowsmith.prompts import Prompt


class Brightness(Judge):
    """Mean of the pixels, 0 to 255; black is an abstention."""

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        means = torch.stack([image.float().mean() for image in images])
        return torch.where(means > 0, means, torch.nan)


def bright(image: Tensor, prompt: Prompt) -> bool | None:
    return bool(image.float().mean() > 100)


def samples() -> tuple[list[Tensor], list[Prompt]]:
    images = [
        torch.full((3, 2, 2), value, dtype=torch.uint8) for value in (0, 30, 60, 90, 120, 150, 180, 240, 250)
    ]
    return images, [Prompt(str(i), "x", task=TASKS[i % 6], facts={}) for i in range(len(images))]


def judged(start: int, end: int) -> dict[str, float]:
    images, prompts = samples()
    brightness, geneval = Brightness("brightness"), GenEval(bright)
    brightness.update(images[start:end], prompts[start:end])
    geneval.update(images[start:end], prompts[start:end])
    mean = brightness.compute()
    assert isinstance(mean, Tensor)
    return {"mean": mean.item(), **{k: v.item() for k, v in geneval.compute().items()}}


def photos() -> list[Tensor]:
    noise = torch.Generator().manual_seed(5)
    sizes = ((64, 64), (112, 118), (90, 60), (56, 56), (70, 100))
    return [
        torch.nn.functional.interpolate(
            torch.randint(0, 256, (1, 3, 5, 5), generator=noise).float(), s, mode="bilinear"
        )[0].byte()
        for s in sizes
    ]


def of_open_clip(weights: Path) -> list[Judge]:
    hps = weights / models.HPS2
    return [
        AestheticScore(weights / models.CLIP),
        ClipScore(weights / models.CLIP),
        PreferenceScore(hps, architecture="ViT-H-14"),
    ]


def of_transformers(weights: Path) -> list[Judge]:
    detector = InstanceDetector.load(weights / models.DETECTOR, short=64, long=96)
    return [
        PickScore(weights / models.PICK_SCORE),
        ImageReward(weights / models.BLIP),
        GenEval(GenEvalChecker(detector, weights / models.CLIP, threshold=0.05)),
    ]


def judged_by(judges: list[Judge], start: int, end: int) -> dict[str, float]:
    """Return what the judges make of a share of the photos; the first two tasks ask for what the detector finds."""
    images = ImageBatch(photos()[start:end])
    asked = [{"class": name, "count": 1} for name in ("person", "cat", "car", "dog", "bench")]
    prompts = [
        Prompt(str(i), "a red cat", task=TASKS[i], facts={"include": [asked[i]]}) for i in range(start, end)
    ]
    result: dict[str, float] = {}
    for judge in judges:
        judge.update(images, prompts)
        said = judge.compute()
        named = said if isinstance(said, dict) else {"": said}
        result |= {f"{judge.name} {name}": value.item() for name, value in named.items()}
    return result


def share(judges: list[Judge], rank: int) -> dict[str, float]:
    return judged(*((0, 2), (2, 9))[rank]) | judged_by(judges, *((0, 2), (2, 5))[rank])


def other(index: int, port: int, folder: str, weights: str, slow: bool) -> None:
    torch.set_num_threads(1)
    work(1, port, folder, weights, slow)


def work(rank: int, port: int, folder: str, weights: str, slow: bool) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        judges = (of_transformers if slow else of_open_clip)(Path(weights))
        Path(folder, f"{rank}.json").write_text(json.dumps(share(judges, rank)))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_uneven_shares_of_two_processes(slow: bool, tmp_path: Path, judges_folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # This process is the first of the two: starting Python with torch is what takes the time.
    given = (port, str(tmp_path), str(judges_folder), slow)
    second = spawn(other, given, nprocs=1, join=False)
    work(0, *given)
    second.join()
    alone, published = (
        judged(0, 9),
        judged_by((of_transformers if slow else of_open_clip)(judges_folder), 0, 5),
    )
    assert alone["mean"] == 140.0  # (30 + 60 + 90 + 120 + 150 + 180 + 240 + 250) / 8
    assert len({round(value, 6) for value in published.values()}) > 2
    for rank in (0, 1):
        said = json.loads((tmp_path / f"{rank}.json").read_text())
        assert {name: said[name] for name in alone} == alone
        assert {name: said[name] for name in published} == pytest.approx(published, abs=1e-5, nan_ok=True)
