"""P("Yes") of small random models of both kinds: one that reads on (LLaVA), one that reads, then writes (BLIP-2)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from flowsmith.metrics import JudgeError, VqaScore
from flowsmith.metrics.preprocessing import Preprocessing

SAID = ["Does", "this", "figure", "show", '"', '"', "?", "Please", "answer", "yes", "or", "no", "."]
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "Yes", "No", "USER:", "ASSISTANT:", *SAID]
WORDS = list(dict.fromkeys([*WORDS, "a", "red", "cat", "<", ">", "i", "m", "g", "e"]))
IDS = {word: i for i, word in enumerate(WORDS)}
CHAT = (
    "{% for turn in messages %}USER: {% for part in turn['content'] %}{% if part['type'] == 'image' %}<image> "
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    words = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split('"', "isolated"), pre_tokenizers.Split("?", "isolated"),
         pre_tokenizers.Split(".", "isolated")]
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        chat_template=CHAT, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision, text_config=text, image_token_index=IDS["<image>"], image_seq_length=4
        )
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    model.save_pretrained(folder)
    return folder


def test_by_hand(llava: Path, photos: list[Tensor]) -> None:
    """The words as a list, the image as four places of it; then the share of Yes among all next words."""
    judge = VqaScore(llava, precision="float32")
    square = photos[1]
    asked = ["USER:", *["<image>"] * 4, *SAID[:4], '"', "a", "red", "cat", '"', *SAID[5:], "ASSISTANT:"]
    asked = [word for i, word in enumerate(asked) if not (word == '"' and asked[i - 1] == '"')]
    pixels = Preprocessing((28, 28))([square])
    model: Any = LlavaForConditionalGeneration.from_pretrained(llava)
    with torch.no_grad():
        logits = (
            model(input_ids=torch.tensor([[IDS[w] for w in asked]]), pixel_values=pixels)
            .logits[0, -1]
            .double()
        )
    yes = float((logits - logits.max()).exp()[IDS["Yes"]] / (logits - logits.max()).exp().sum())
    # transformers resizes on tensors, PIL here: a pixel may be off by one in 255.
    assert float(judge.judge([square], ["a red cat"])) == pytest.approx(yes, rel=0.02)
    values = judge.judge(photos, ["a red cat", "a cat"] * 3)
    assert values.min() > 0
    assert values.max() < 1
    assert values.std() > 1e-4
    alone = torch.cat([judge.judge([photo], ["a red cat"]) for photo in photos[::2]])
    torch.testing.assert_close(values[::2], alone, atol=1e-6, rtol=1e-5)


def test_a_user_cannot_add_an_image(llava: Path, photos: list[Tensor]) -> None:
    """A second place for an image would have no image, and is an error in the model."""
    judge = VqaScore(llava, precision="float32")
    plain = judge.judge(photos[:1], ["a < i m a g e > cat"])
    torch.testing.assert_close(judge.judge(photos[:1], ["a <image> cat"]), plain)


def test_bfloat16_is_near(llava: Path, photos: list[Tensor]) -> None:
    texts = ["a red cat"] * len(photos)
    exact, rough = (VqaScore(llava, precision=p).judge(photos, texts) for p in ("float32", "bfloat16"))
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.002)
    assert not torch.equal(rough, exact)


def test_settings_that_cannot_work(llava: Path, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"leaves no place for the prompt: write \{\}"):
        VqaScore(llava, question="Is it good?")
    with pytest.raises(JudgeError, match="is no folder"):
        VqaScore(tmp_path / "nowhere")
