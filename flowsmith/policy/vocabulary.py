"""One vocabulary for two languages: the user's words, and flows.

    0 .. text_size - 1        the text tokenizer's own ids (rows of the text model's embedding)
    text_size, + 1, + 2       begin, <flow>, padding
    flow_offset ..            the codec's tokens

The text side is a plain tokenizer without one special token, so no string that a user types can become a
control or flow token: "<flow>" or "KSampler.steps=20" in a prompt is spelt out in letters.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from flowsmith.flows import Codec
from flowsmith.policy.errors import PolicyError

_CONTROLS = 3
_LAYOUT = "vocabulary.json"


class FlowTokenizer:
    """Prompts to ids, and where the flow tokens begin.

    Attributes:
        text: The plain text tokenizer.
        text_size: Ids that belong to text.
        bos: Begins every sequence: the text model's own, or the first control id.
        flow: Ends the prompt and begins the flow.
        pad: Fills up; never attended to.
        flow_offset: Id of the codec's token 0.
        size: All ids: the rows that the model's embedding must have.
    """

    def __init__(self, text: Tokenizer, text_size: int, codec_size: int, bos: int | None = None) -> None:
        """Lay out the ids; ``bos`` is the text model's own first token, if it has one."""
        self.text = text
        self.text_size = text_size
        self.bos = text_size if bos is None else bos
        self.flow = text_size + 1
        self.pad = text_size + 2
        self.flow_offset = text_size + _CONTROLS
        self.size = self.flow_offset + codec_size

    @classmethod
    def from_captions(cls, texts: Iterable[str], codec: Codec, size: int = 1024) -> "FlowTokenizer":
        """Train a byte-level BPE: a function of the set of texts, whatever their order.

        Args:
            texts: What prompts look like. Any other text still encodes, in more tokens.
            codec: Its tokens follow the text's.
            size: Text tokens, at least 256 (one a byte); fewer come out if the texts hold fewer pairs.

        Raises:
            PolicyError: ``size`` is below 256.
        """
        if size < 256:
            raise PolicyError(f"size={size}: a byte-level vocabulary has one token a byte; use 256 or more")
        text = Tokenizer(models.BPE())
        text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        text.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            special_tokens=[],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        text.train_from_iterator(sorted(set(texts)), trainer)
        return cls(text, text.get_vocab_size(), codec.size)

    @classmethod
    def from_text_model(cls, text: str, rows: int, codec: Codec, bos: int | None) -> "FlowTokenizer":
        """Take over the tokenizer of a text model, given as tokenizers JSON, without its special tokens.

        Args:
            text: Content of its ``tokenizer.json``.
            rows: Rows of its embedding.
            codec: Its tokens follow the text's.
            bos: Its first token, if it has one.
        """
        fields = json.loads(text)
        # What is no longer listed cannot be recognised in a prompt; the byte pairs spell it out instead.
        fields |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        return cls(Tokenizer.from_str(json.dumps(fields)), rows, codec.size, bos)

    def encode_prompt(self, text: str) -> list[int]:
        """Return ``bos``, the prompt's text ids, ``<flow>``."""
        return [self.bos, *self.text.encode(text, add_special_tokens=False).ids, self.flow]

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``vocabulary.json`` into an existing folder."""
        self.text.save(str(folder / "tokenizer.json"))
        layout = {
            "text_size": self.text_size,
            "bos": self.bos,
            "flow": self.flow,
            "pad": self.pad,
            "flow_offset": self.flow_offset,
            "size": self.size,
        }
        (folder / _LAYOUT).write_text(json.dumps(layout, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "FlowTokenizer":
        """Read what `save` wrote.

        Raises:
            PolicyError: A file is missing or unreadable.
        """
        try:
            layout = json.loads((folder / _LAYOUT).read_text(encoding="utf-8"))
            text = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
            return cls(text, layout["text_size"], layout["size"] - layout["flow_offset"], layout["bos"])
        except Exception as error:  # tokenizers raises bare Exception
            raise PolicyError(
                f"{folder}: no readable vocabulary ({error}); export the policy again, or name the folder "
                "of an export"
            ) from error
