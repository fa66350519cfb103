"""A linear reading of everything that is true of a picture, from the CLIP's embedding.

Contrast alone is slow to teach shapes, counts and relations to a small network: colours and settings tell most
captions apart, and the rest of the gradient drowns. So while the CLIP trains, its embedding must also say linearly
what the picture holds and what is wrong with it. The head is thrown away afterwards.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from miniature.judges.faults import FAULTS
from miniature.judges.images import View
from miniature.judges.scene_facts import OPPOSITE
from miniature.scenes import (
    COLORS,
    MAX_OBJECTS,
    RELATIONS,
    SETTINGS,
    SHAPES,
    SIZES,
    STYLES,
    TEXTURES,
    Scene,
)

_KINDS = [(color, shape) for color in COLORS for shape in SHAPES]
# One question a kind of object ("how many?"), then relation, setting, style, size, texture, fault.
_CLASSES = (
    [MAX_OBJECTS + 1] * len(_KINDS)
    + [len(RELATIONS) + 1, len(SETTINGS), len(STYLES), len(SIZES), len(TEXTURES), len(FAULTS) + 1]
)  # fmt: skip
_KIND_WEIGHT = 0.5  # of each "how many?"; most of them are a plain 0
_RATING_MEAN, _RATING_STD = 5.5, 2.0
_RATING_WEIGHT = 4.0  # an aesthetic head is linear too: what it is to say, the embedding must hold
_UNKNOWN = -100  # cross_entropy leaves such answers out


class FactsHead(nn.Module):
    """One linear layer; its outputs are the classes of all questions, then the rating.

    Args:
        dim: Length of the embedding.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, sum(_CLASSES) + 1)

    def loss(self, embedding: Tensor, views: Sequence[View]) -> Tensor:
        """Return the summed cross-entropies (each a mean over n) plus the squared error of the rating.

        What a flow made has no known rating, and no known fault but an added one: these answers are not asked for.

        Args:
            embedding: n x dim, of any length.
            views: How the n pictures were made; one at least by no flow.
        """
        *answers, rated = self.layer(embedding).split([*_CLASSES, 1], 1)
        targets = torch.tensor([answers_of(view) for view in views]).T
        ratings = torch.tensor([(view.rating - _RATING_MEAN) / _RATING_STD for view in views])
        rendered = torch.tensor([not view.generated for view in views])
        total = _RATING_WEIGHT * mse_loss(rated[rendered, 0], ratings[rendered])
        for number, (logits, target) in enumerate(zip(answers, targets, strict=True)):
            total = total + (_KIND_WEIGHT if number < len(_KINDS) else 1.0) * cross_entropy(logits, target)
        return total

    def gain_loss(self, before: Tensor, after: Tensor, gains: Sequence[float]) -> Tensor:
        """Return the squared error of by how much ratings rise: how a generated picture is rated nobody knows.

        Args:
            before: Embeddings of pictures, n x dim.
            after: Of the same pictures, spoilt.
            gains: Points.
        """
        risen = (self.layer(after) - self.layer(before))[:, -1]
        return _RATING_WEIGHT * mse_loss(risen, torch.tensor(gains) / _RATING_STD)


def answers_of(view: View) -> list[int]:
    """Return the right class of every question, -100 where unknown; a fault too weak to see counts as none."""
    scene = view.scene
    counts = dict.fromkeys(_KINDS, 0)
    for group in scene.groups:
        counts[group.color, group.shape] += group.count
    seen = view.fault is not None and view.strength >= 0.2
    fault = 1 + FAULTS.index(view.fault) if seen and view.fault else _UNKNOWN if view.generated else 0
    return [
        *counts.values(),
        _relation(scene),
        SETTINGS.index(scene.setting),
        STYLES.index(scene.style),
        SIZES.index(scene.size),
        TEXTURES.index(scene.texture),
        fault,
    ]


def _relation(scene: Scene) -> int:
    """Return 0 for none, else 1 + where the group that is first by name stands: words may tell either first."""
    if scene.relation is None:
        return 0
    first, second = scene.groups
    in_order = (first.color, first.shape) < (second.color, second.shape)
    return 1 + RELATIONS.index(scene.relation if in_order else OPPOSITE[scene.relation])
