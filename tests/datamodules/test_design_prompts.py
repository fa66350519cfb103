from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datamodules.design_prompts import DesignPrompts
from flowsmith.prompts import Prompt, PromptError, write_prompts


def data(folder: Path, rank: int, world: int) -> DesignPrompts:
    write_prompts(folder / "prompts.jsonl", [Prompt(f"p{i}", f"prompt {i}", "train") for i in range(3)])
    prompts: Any = DesignPrompts(str(folder / "prompts.jsonl"), ["train"], batch=2)
    prompts.trainer = SimpleNamespace(global_rank=rank, world_size=world)
    made: DesignPrompts = prompts
    return made


def test_processes_share_the_prompts(tmp_path: Path) -> None:
    shares = []
    for rank in range(3):
        prompts = data(tmp_path, rank, 3)
        prompts.setup()
        shares.append([[prompt.id for prompt in batch] for batch in prompts.predict_dataloader()])
    assert shares == [[["p0"]], [["p1"]], [["p2"]]]


def test_fewer_prompts_than_processes_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        PromptError, match=r"3 prompt\(s\) for 4 processes; take more .* --trainer\.devices 1"
    ):
        data(tmp_path, 0, 4).setup()
