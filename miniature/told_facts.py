"""A linear reading of what a caption tells from the text encoder's output.

Stable Diffusion's text encoder comes trained on millions of captions; the miniature's learns beside its UNet, whose
loss is slow to teach it which colour is whose and which side is left. So while it trains, the mean of what it makes of
the tokens after the last word must say so linearly. The head is thrown away afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from miniature.scenes import COLORS, RELATIONS, SETTINGS, SHAPES, SIZES, STYLES, TEXTURES
from miniature.text_encoder import WIDTH

_GROUP = {"shape": SHAPES, "color": COLORS, "count": (1, 2, 3)}
_LOOKS = {
    "relation": RELATIONS,
    "setting": SETTINGS,
    "style": STYLES,
    "size": SIZES,
    "texture": TEXTURES,
}
_QUESTIONS: list[tuple[Any, ...]] = [*_GROUP.values(), *_GROUP.values(), *_LOOKS.values()]


class ToldFacts(nn.Module):
    """One linear layer; its outputs are the classes of all questions, of each the first for "unsaid"."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, sum(len(options) + 1 for options in _QUESTIONS))

    def loss(self, text: Tensor, ended: Tensor, facts: Sequence[Mapping[str, Any] | None]) -> Tensor:
        """Return the mean cross-entropy of all questions.

        Args:
            text: The encoder's output, n x tokens x width.
            ended: Which tokens come after the last word, n x tokens; one at least of each caption.
            facts: Of each caption as `miniature.captions.Told` has them; None for a caption that tells nothing, which
                is not asked. One at least tells something.
        """
        asked = torch.tensor([told is not None for told in facts])
        weights = ended[asked].float()
        mean = torch.einsum("ntw,nt->nw", text[asked], weights / weights.sum(1, keepdim=True))
        answers = self.layer(mean).split([len(options) + 1 for options in _QUESTIONS], 1)
        targets = torch.tensor([answers_of(told) for told in facts if told is not None]).T
        losses = [cross_entropy(a, target) for a, target in zip(answers, targets, strict=True)]
        return torch.stack(losses).mean()


def answers_of(facts: Mapping[str, Any]) -> list[int]:
    """Return the right class of every question: 0 for unsaid, else 1 + the place among the options."""
    groups = [*facts["groups"], {}][:2]
    told = [group.get(name) for group in groups for name in _GROUP] + [facts.get(name) for name in _LOOKS]
    return [
        0 if value is None else 1 + options.index(value)
        for value, options in zip(told, _QUESTIONS, strict=True)
    ]
