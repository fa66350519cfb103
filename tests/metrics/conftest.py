import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from flowsmith.metrics import AestheticHead
from flowsmith.metrics.published.random_models import write_judges

WORDS = [
    "<pad>",
    "<start>",
    "<end>",
    "<unk>",
    "a",
    "two",
    "red",
    "blue",
    "star",
    "circle",
    "stars",
    "of",
    "left",
]
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
        "text_cfg": {
            "context_length": 8,
            "vocab_size": len(WORDS),
            "hf_tokenizer_name": "here",
            "width": 16,
            "heads": 2,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": 2,
        },
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
}
SIDE = 56  # of what the CLIPs of `judges_folder` see
BARE = "flowsmith-test-bare"  # an architecture that open_clip knows by name, with its own large vocabulary


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CLIP as an open_clip folder with its own tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder)
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**{**CONFIG["model_cfg"]})
    for parameter in model.parameters():  # open_clip starts with embeddings so alike that nothing would show
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    torch.nn.init.normal_(model.visual.positional_embedding, std=0.1)
    torch.nn.init.zeros_(model.visual.class_embedding)  # so that the picture alone decides
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def bare_architecture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Register a small architecture under a name, as ViT-H-14 is."""
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 12, "vision_cfg": CONFIG["model_cfg"]["vision_cfg"], "text_cfg": text}
    file = tmp_path_factory.mktemp("configs") / f"{BARE}.json"
    file.write_text(json.dumps(config))
    open_clip.add_model_config(file)
    return BARE


@pytest.fixture
def head_file(tmp_path: Path) -> Path:
    torch.manual_seed(2)
    file = tmp_path / "aesthetic.safetensors"
    save_file(AestheticHead(12).state_dict(), file)
    return file


@pytest.fixture
def images() -> list[torch.Tensor]:
    """Pictures of four sizes, smooth enough that a resize is no lottery."""
    noise = torch.Generator().manual_seed(3)
    sizes = [(64, 64), (32, 32), (48, 80), (64, 64), (32, 32)]
    coarse = [torch.randint(0, 256, (1, 3, 5, 5), generator=noise).float() for _ in sizes]
    return [
        torch.nn.functional.interpolate(c, s, mode="bilinear")[0].round().byte()
        for c, s in zip(coarse, sizes, strict=True)
    ]


@pytest.fixture(scope="session", autouse=True)
def words_read_once() -> Iterator[None]:
    """CLIP's word list takes half a second to read, for each of many encoders."""
    with pytest.MonkeyPatch.context() as patch:
        once = cache(open_clip.SimpleTokenizer)
        patch.setattr(open_clip, "SimpleTokenizer", once)
        patch.setattr(open_clip.factory, "SimpleTokenizer", once)
        yield


@pytest.fixture(scope="session")
def judges_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random judges in their authors' formats."""
    folder = tmp_path_factory.mktemp("judges")
    write_judges(folder, SIDE)
    return folder


@pytest.fixture
def photos() -> list[torch.Tensor]:
    """Smooth pictures of many shapes; (112, 118) becomes 56 x 59, and of a remainder of three the crops differ."""
    noise = torch.Generator().manual_seed(7)
    return [
        torch.nn.functional.interpolate(
            torch.randint(0, 256, (1, 3, 6, 6), generator=noise).float(), size, mode="bilinear"
        )[0]
        .round()
        .byte()
        for size in ((96, 131), (64, 64), (211, 83), (112, 118), (SIDE, SIDE), (30, 45))
    ]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
