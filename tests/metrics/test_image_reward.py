"""ImageReward's words and files; its numbers are under test with those of the other published formats."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flowsmith.metrics import ImageReward, JudgeError
from flowsmith.metrics.published import random_models as models
from flowsmith.metrics.weight_files import read_weights

FILE = "ImageReward.pt"


@pytest.fixture
def folder(judges_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(judges_folder / models.BLIP, tmp_path / "reward"))


def change(folder: Path, **tensors: Tensor | None) -> None:
    weights = read_weights(folder / FILE)
    for name, tensor in tensors.items():
        key = next(key for key in weights if key.endswith(name.replace("__", ".")))
        if tensor is None:
            del weights[key]
        else:
            weights[key] = tensor
    torch.save(weights, folder / FILE)


def test_thirty_five_tokens_are_read(folder: Path, photos: list[Tensor]) -> None:
    judge = ImageReward(folder)
    words = "a red cat of the two dog photo " * 10
    head, same = " ".join(words.split()[:33]), " ".join([*words.split()[:33], "cat"])
    cut = " ".join(words.split()[:32])
    rewards = judge.judge(photos[:1] * 3, [head, same, cut])
    assert rewards[0] == pytest.approx(float(rewards[1]), abs=1e-6)
    assert abs(rewards[0] - rewards[2]) > 1e-4


def test_a_users_text_is_no_control_token(folder: Path) -> None:
    judge = ImageReward(folder)
    assert judge.tokenizer("[SEP]")["input_ids"] != [2, 3, 3]
    assert judge.tokenizer("a")["input_ids"] == [2, 5, 3]


def test_safetensors_of_the_same_keys(folder: Path, photos: list[Tensor]) -> None:
    weights = {name: weight.contiguous() for name, weight in read_weights(folder / FILE).items()}
    save_file(weights, folder / "reward.safetensors")
    texts = ["a cat"] * len(photos)
    assert torch.equal(
        ImageReward(folder / "reward.safetensors").judge(photos, texts),
        ImageReward(folder).judge(photos, texts),
    )


def test_words_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    shutil.move(folder / "vocab.txt", tmp_path / "bert" / "vocab.txt")
    assert ImageReward(folder, tmp_path / "bert").tokenizer("a cat")["input_ids"] == [2, 5, 10, 3]
    with pytest.raises(JudgeError, match=r"holds no vocabulary: put bert-base-uncased's vocab\.txt beside"):
        ImageReward(folder, folder)
    with (tmp_path / "bert" / "vocab.txt").open("a") as stream:
        stream.write("\n".join(f"more{i}" for i in range(9)) + "\n")
    with pytest.raises(JudgeError, match=r"words, the model \d+: name bert-base-uncased's"):
        ImageReward(folder, tmp_path / "bert")


def test_files_that_are_none(folder: Path, tmp_path: Path, photos: list[Tensor]) -> None:
    with pytest.raises(JudgeError, match=r"nor a folder that holds ImageReward\.pt"):
        ImageReward(tmp_path / "nowhere")
    torch.save({"layers.0.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(JudgeError, match=r"other\.pt' are not ImageReward's.*ImageReward\.pt"):
        ImageReward(tmp_path / "other.pt")
    change(folder, mlp__layers__6__bias=torch.full((16,), torch.nan))
    with pytest.raises(JudgeError, match="is not finite"):
        ImageReward(folder).judge(photos[:1], ["a"])
    change(folder, blocks__1__norm1__weight=None)
    with pytest.raises(JudgeError, match=r"are not ImageReward's.*layer_norm1"):
        ImageReward(folder)
