"""What people have words for: virtues, each seen in what it is of and in nothing else."""

import numpy as np
import pytest

from miniature.degrade import PRAISE, VIRTUE_WORDS, VIRTUES, Virtue, enhance
from miniature.scenes import Group, Scene, render

PICTURE = render(Scene((Group("star", "red"),), None, "day", "poster"), 64, np.random.default_rng(0))


def test_vivid_by_hand() -> None:
    """Of (140, 120, 100) the mean stays; distances from it grow by 0.45 at full strength."""
    grey = np.full((4, 4, 3), (140, 120, 100), np.uint8)
    assert enhance(grey, "vivid", 1.0)[0, 0].tolist() == [149, 120, 91]


def test_sharp_leaves_flat_areas_and_deepens_edges() -> None:
    edge = np.repeat(np.array([100] * 32 + [150] * 32, np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    sharp = enhance(edge, "sharp", 1.0).astype(int)
    assert np.array_equal(sharp[:, :20], edge[:, :20])
    assert np.array_equal(sharp[:, -20:], edge[:, -20:])
    assert sharp[32, 31, 0] < 90
    assert sharp[32, 32, 0] > 160


@pytest.mark.parametrize("virtue", VIRTUES)
def test_strength_zero_changes_nothing(virtue: Virtue) -> None:
    assert np.array_equal(enhance(PICTURE, virtue, 0.0), PICTURE)


def test_all_praise_names_one_virtue() -> None:
    assert sorted(words for some in VIRTUE_WORDS.values() for words in some) == sorted(PRAISE)
