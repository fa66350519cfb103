"""VQAScore (Lin et al., 2024): how sure a model that sees and reads is that the image shows the prompt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsmith.metrics.open_clip_loader import Precision
from flowsmith.metrics.preprocessing import to_pil
from flowsmith.metrics.protocol import Judge, JudgeError, check_samples, text_of
from flowsmith.metrics.transformers_loader import load_model, name_of
from flowsmith.prompts import Prompt

QUESTION = 'Does this figure show "{}"? Please answer yes or no.'


class VqaScore(Judge):
    """Probability that the answer to the question starts with the word Yes, 0 to 1.

    Any of transformers' models from image and text to text answers: InstructBLIP, LLaVA, Qwen-VL and others. The
    published scores are of CLIP-FlanT5, which transformers does not have: compare values of one model alone.

    Args:
        model: Folder of model and processor, or ``hf-hub:owner/name``.
        question: What is asked; ``{}`` stands for the prompt.
        answer: The word whose first token is looked for.
        name: Column and log name.
        precision: Of the weights; a model of billions of them is loaded as it will be used.

    Raises:
        JudgeError: The model is missing or incomplete, or the question leaves no place for the prompt.
    """

    network: Any

    def __init__(
        self,
        model: str | Path,
        question: str = QUESTION,
        answer: str = "Yes",
        name: str = "vqa_score",
        precision: Precision = "bfloat16",
    ) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if "{}" not in question:
            raise JudgeError(
                f"question={question!r} leaves no place for the prompt: write {{}} where it goes"
            )
        network = load_model("model", model, AutoModelForImageTextToText, getattr(torch, precision))
        super().__init__(name, network=network)
        try:
            self.processor = AutoProcessor.from_pretrained(name_of("model", model), trust_remote_code=False)
        except Exception as error:  # transformers raises what it likes where a file is missing
            raise JudgeError(
                f"model={str(model)!r} has no processor ({error}); name a folder that holds both"
            ) from error
        self.question = question
        self._tokens = self.processor.tokenizer
        self._answer = self._tokens(answer, add_special_tokens=False)["input_ids"][0]

    @torch.no_grad()
    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        """Return the probability for each sample; one at a time, so that nothing is padded."""
        check_samples(images, prompts)
        answers = [self._answer_to(i, text_of(p)) for i, p in zip(images, prompts, strict=True)]
        return torch.stack(answers)

    def _answer_to(self, image: Tensor, text: str) -> Tensor:
        asked = self.question.replace("{}", self._plain(text))
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": asked}]
            turn = [{"role": "user", "content": content}]
            asked = self.processor.apply_chat_template(turn, add_generation_prompt=True)
        inputs = self.processor(images=to_pil(image), text=asked, return_tensors="pt").to(self.device)
        words = self.network.config.get_text_config()
        if words.is_encoder_decoder:
            start = (
                words.pad_token_id if words.decoder_start_token_id is None else words.decoder_start_token_id
            )
            inputs["decoder_input_ids"] = torch.tensor([[start]], device=self.device)
        given = {k: v.to(self.network.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        return self.network(**given).logits[0, -1].float().softmax(-1)[self._answer]  # type: ignore[no-any-return]

    def _plain(self, text: str) -> str:
        """Take control tokens, such as an image's place, out of what a user typed."""
        for token in {*self._tokens.all_special_tokens, *self._tokens.get_added_vocab()}:
            text = text.replace(token, " ".join(token))
        return text
