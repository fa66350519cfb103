"""The policy: a causal language model that reads a prompt and writes a flow."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowsmith.files import atomic_write
from flowsmith.flows import Codec
from flowsmith.flows.walker import Walker
from flowsmith.flows.wide.grammar import grammar_of
from flowsmith.policy import adapters, build
from flowsmith.policy.allowed import AllowedSets
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.vocabulary import FlowTokenizer

_CARD = "flowsmith.json"
_FIELDS = {"base": str, "budget": int, "codec": str, "dtype": str, "kind": str}


class Policy(nn.Module):
    """A Hugging Face causal LM, its vocabulary, and the grammar under which it speaks.

    Attributes:
        model: The network, or a ``PeftModel`` around it.
        tokenizer: Prompts to ids.
        codec: Flows to tokens.
        grammar: Which token may follow, within the token budget.
        adapter: Name of the LoRA adapter that is this policy; None for a full model.
        base: Folder or hub id of the text model under the adapter; "" for a full model.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: FlowTokenizer,
        codec: Codec,
        grammar: Walker[Any],
        adapter: str | None = None,
        base: str = "",
        dtype: build.DType = "float32",
    ) -> None:
        """Put the parts together; see `create`, `from_text_model` and `load` for the usual ways."""
        super().__init__()
        build.without_dropout(model)
        self.model = model
        self.tokenizer = tokenizer
        self.codec = codec
        self.grammar = grammar
        self.adapter = adapter
        self.base = base
        self.dtype = dtype
        self.allowed_sets = AllowedSets(grammar, codec.size)

    @classmethod
    def create(
        cls,
        codec: Codec,
        tokenizer: FlowTokenizer,
        budget: int,
        *,
        hidden: int = 128,
        layers: int = 4,
        heads: int = 4,
        context: int = 512,
        seed: int = 0,
    ) -> Self:
        """Return an untrained small Llama.

        Args:
            codec: The flow vocabulary.
            tokenizer: Laid out for this codec.
            budget: Longest flow, in tokens.
            hidden: Width.
            layers: Depth.
            heads: Attention heads.
            context: Longest sequence, prompt and flow together, in tokens.
            seed: Of the initial weights.

        Raises:
            PolicyError: A size is below 1, or ``hidden`` does not divide among the heads.
        """
        model = build.small_llama(
            tokenizer, hidden=hidden, layers=layers, heads=heads, context=context, seed=seed
        )
        return cls(model, tokenizer, codec, grammar_of(codec, budget))

    @classmethod
    def from_text_model(
        cls,
        codec: Codec,
        base: str,
        budget: int,
        *,
        lora_rank: int = 16,
        lora_alpha: float = 32.0,
        dtype: build.DType = "float32",
    ) -> Self:
        """Start from a pretrained causal LM, with new rows for the flow tokens.

        Args:
            codec: The flow vocabulary.
            base: Folder or hub id of the text model.
            budget: Longest flow, in tokens.
            lora_rank: Rank of the adapter that trains; 0 trains the whole model.
            lora_alpha: LoRA's scale is ``lora_alpha / lora_rank``.
            dtype: Of the weights.

        Raises:
            PolicyError: The model cannot be loaded or used.
        """
        model = build.text_model(base, dtype)
        tokenizer = build.text_tokenizer(base, model.get_input_embeddings().weight.shape[0], codec)
        build.enlarge(model, tokenizer)
        if lora_rank == 0:
            return cls(model, tokenizer, codec, grammar_of(codec, budget), dtype=dtype)
        wrapped = adapters.lora(model, tokenizer.text_size, lora_rank, lora_alpha)
        return cls(wrapped, tokenizer, codec, grammar_of(codec, budget), "vocabulary", base, dtype)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @property
    def causal(self) -> Any:
        """The causal LM itself, with adapters in place but without peft's shell."""
        model: Any = self.model
        return model if self.adapter is None else model.get_base_model()

    def head(self) -> tuple[Tensor, Tensor | None]:
        """Return weight (codec.size x hidden) and bias of the language head's flow rows, with gradients."""
        rows = slice(self.tokenizer.flow_offset, self.tokenizer.size)
        return adapters.head_rows(self.causal, self.adapter, rows)

    def forward(
        self, ids: Tensor, attention_mask: Tensor, positions: Tensor, at: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return raw flow logits where they are needed, and nowhere else.

        Args:
            ids: Tokens, B x L.
            attention_mask: 1 at real tokens, B x L.
            positions: Position of every token, B x L.
            at: Batch and slot indices, N each: the logits *after* these tokens are returned.

        Returns:
            Logits over the codec's tokens, N x codec.size, not masked.
        """
        with adapters.activated(self.model, self.adapter):
            hidden = self.causal.base_model(
                input_ids=ids, attention_mask=attention_mask, position_ids=positions, use_cache=False
            ).last_hidden_state[at]
        logits = functional.linear(hidden, *self.head())
        # A softmax over half-precision logits would lose what tells close choices apart.
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return ids of each prompt, from ``bos`` to ``<flow>``.

        Raises:
            PolicyError: A prompt leaves no room for a flow of the full budget.
        """
        encoded = [self.tokenizer.encode_prompt(prompt) for prompt in prompts]
        room = int(self.causal.config.max_position_embeddings) - self.grammar.budget
        for prompt, ids in zip(prompts, encoded, strict=True):
            if len(ids) > room:
                raise PolicyError(
                    f"prompt {prompt[:60]!r}... has {len(ids)} tokens, but beside a flow of "
                    f"{self.grammar.budget} the model reads {room}; shorten the prompt, or raise context"
                )
        return encoded

    def export(self, folder: Path | str) -> None:
        """Write the policy whole or not at all: ``save_pretrained`` layout, vocabulary, codec; no pickle."""
        with atomic_write(folder) as temporary:
            (temporary / "codec").mkdir(parents=True)
            if self.adapter is None:
                self.causal.save_pretrained(str(temporary))
            else:
                adapters.save_adapter(self.model, temporary, self.adapter)
            self.tokenizer.save(temporary)
            self.codec.save(temporary / "codec")
            card = {
                "base": self.base,
                "budget": self.grammar.budget,
                "codec": self.codec.fingerprint,
                "dtype": self.dtype,
                "kind": "full" if self.adapter is None else "lora",
            }
            (temporary / _CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str, trainable: bool = False) -> Self:
        """Read an export.

        Args:
            folder: What `export` wrote.
            trainable: Whether its weights (LoRA: its adapter without the token rows) may train.

        Raises:
            PolicyError: The folder is missing, incomplete, corrupt, or of another vocabulary.
        """
        folder = Path(folder)
        card, tokenizer, codec = _read_parts(folder)
        grammar = grammar_of(codec, card["budget"])
        try:
            if card["kind"] == "full":
                policy = cls(build.text_model(str(folder), card["dtype"]), tokenizer, codec, grammar)
                policy.dtype = card["dtype"]
                policy.model.requires_grad_(trainable)
                return policy
            model = build.text_model(card["base"], card["dtype"])
            build.enlarge(model, tokenizer)
            wrapped = adapters.attach(model, folder, "vocabulary", trainable)
            adapters.freeze_token_rows(wrapped)
            return cls(wrapped, tokenizer, codec, grammar, "vocabulary", card["base"], card["dtype"])
        except PolicyError:
            raise
        except Exception as error:  # safetensors and peft raise many kinds
            raise PolicyError(f"policy={folder}: unreadable weights ({error}); export it again") from error


def load_pair(policy: Path | str, reference: Path | str, trainable: bool = False) -> tuple[Policy, Policy]:
    """Read a policy and the reference that it started from; LoRA adapters share one base model.

    Args:
        policy: Export of the policy, or of vocabulary training to start GRPO from.
        reference: Export of the reference.
        trainable: Whether the policy may train; the reference never does.

    Raises:
        PolicyError: One cannot be read, or they speak different vocabularies.
    """
    cards = [_read_parts(Path(folder)) for folder in (policy, reference)]
    if cards[0][2].fingerprint != cards[1][2].fingerprint or cards[0][1].size != cards[1][1].size:
        raise PolicyError(
            f"policy={policy} and reference={reference} have different vocabularies, so their logits cannot "
            "be combined; name the export that the policy was trained from"
        )
    first, second = cards[0][0], cards[1][0]
    if not (first["kind"] == second["kind"] == "lora" and first["base"] == second["base"]):
        return Policy.load(policy, trainable), Policy.load(reference)
    frozen = Policy.load(reference)
    adapters.attach(frozen.model, Path(policy), "policy", trainable)
    adapters.freeze_token_rows(frozen.model)
    shared = (frozen.tokenizer, frozen.codec, frozen.grammar)
    return Policy(frozen.model, *shared, "policy", frozen.base, frozen.dtype), frozen


def _read_parts(folder: Path) -> tuple[dict[str, Any], FlowTokenizer, Codec]:
    """Read everything of an export but its weights, and check that it belongs together."""
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        wrong = [
            f"{name}={card.get(name)!r}" for name, kind in _FIELDS.items() if type(card.get(name)) is not kind
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise PolicyError(
            f"policy={folder}: not an exported policy ({error}); run `train.py --config vocabulary.yaml`, "
            "or name its export folder"
        ) from error
    if wrong:
        raise PolicyError(
            f"policy={folder}: {_CARD} lacks a value or has one of the wrong kind ({', '.join(wrong)}); export "
            "the policy again"
        )
    tokenizer, codec = FlowTokenizer.load(folder), Codec.load(folder / "codec")
    if codec.fingerprint != card["codec"] or tokenizer.size - tokenizer.flow_offset != codec.size:
        raise PolicyError(
            f"policy={folder}: its codec {codec.fingerprint} is not the one that the weights were trained "
            f"with ({card['codec']}); export the policy again"
        )
    return card, tokenizer, codec
