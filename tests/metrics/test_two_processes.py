"""The mean over two real processes with uneven shares is the mean over all samples."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from flowsmith.metrics import TASKS, GenEval, Judge
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


def other(index: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    work(1, port, folder)


def work(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        result = judged(*((0, 2), (2, 9))[rank])
        Path(folder, f"{rank}.json").write_text(json.dumps(result))
    finally:
        dist.destroy_process_group()


def test_uneven_shares_of_two_processes(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # This process is the first of the two: starting Python with torch is what takes the time.
    second = spawn(other, (port, str(tmp_path)), nprocs=1, join=False)
    work(0, port, str(tmp_path))
    second.join()
    alone = judged(0, 9)
    assert alone["mean"] == 140.0  # (30 + 60 + 90 + 120 + 150 + 180 + 240 + 250) / 8
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
