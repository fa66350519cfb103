from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from flowsmith.metrics import AestheticScore, ClipScore, PreferenceScore
from miniature.captions import sample_pair
from miniature.judges.aesthetic import train_aesthetic
from miniature.judges.clip import contrastive_loss, gate_clip, told_batch, train_clip
from miniature.judges.faults import FAULTS, Fault, rating, spoil
from miniature.judges.images import FAMILY, SIZE, Pool, View, jitter, make_pool
from miniature.judges.preference import draw_pairs, train_preference
from miniature.judges.scene_facts import holds
from miniature.scenes import Group, Scene, render

SCENE = Scene((Group("star", "red"), Group("circle", "blue")), "left", "day", "poster")


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(24, seed=1)


@pytest.mark.parametrize("fault", FAULTS[:-1])
def test_faults_grow_with_their_strength(fault: Fault) -> None:
    rng = np.random.default_rng(2)
    clean, other = render(SCENE, 64, rng), render(sample_pair(rng)[0], 64, rng)
    copy = clean.copy()
    strengths = (0.3, 0.6, 1.0)
    spoilt = [spoil(clean, fault, s, np.random.default_rng(3), other).astype(float) for s in strengths]
    errors = [float(np.abs(s - clean).mean()) for s in spoilt]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert errors[2] > 3, "severe must be seen"
    assert np.array_equal(clean, copy), "the clean picture must stay"


def test_ratings_by_hand() -> None:
    assert rating("poster", None, 0.0, fine=False) == 7.0
    assert rating("poster", None, 0.0, fine=True) == 7.8
    assert rating("poster", "noisy", 0.5, fine=False) == 4.5
    assert rating("pencil", "noisy", 0.5, fine=False) == 5.5
    # A poster may be a little harsh, best at a quarter: 7 + 3 / 4 there, 7 + 3 (1/4 - 3/4) at full strength.
    assert rating("poster", "burnt", 0.25, fine=False) == 7.75
    assert rating("poster", "burnt", 1.0, fine=False) == 5.5
    assert rating("pencil", "burnt", 0.25, fine=False) == 5.75


def test_contrastive_loss_is_clips_where_one_text_is_right() -> None:
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(4))
    own = torch.arange(5)
    expected = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    ours = contrastive_loss(logits, torch.eye(5, dtype=torch.bool), torch.ones(5, 5, dtype=torch.bool))
    torch.testing.assert_close(ours, expected)


def test_contrastive_loss_with_several_right_texts_and_unknown_ones() -> None:
    """Two equal captions share the picture, so nothing pulls them apart; an unknown pair gets no gradient."""
    logits = torch.zeros(3, 3, requires_grad=True)
    target = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    known = torch.ones(3, 3, dtype=torch.bool)
    known[2, 0] = False
    loss = contrastive_loss(logits, target, known)
    (gradient,) = torch.autograd.grad(loss, logits)
    rows = (2 * np.log(3) + np.log(2)) / 3  # picture by picture
    columns = (np.log(2) + 2 * np.log(3)) / 3  # text by text
    assert loss.item() == pytest.approx((rows + columns) / 2)
    assert gradient[2, 0] == 0
    assert gradient[0, 1] < 0 < gradient[0, 2]


def test_pool_is_made_again_alike(pool: Pool) -> None:
    again = make_pool(24, seed=1)
    assert again.views == pool.views
    assert torch.equal(again.images, pool.images)
    assert pool.images.shape == (24 * FAMILY, 3, SIZE, SIZE)
    for k in range(pool.families):  # near misses: no two of a family show the same
        assert len({view.scene for view in pool.views[k * FAMILY : (k + 1) * FAMILY]}) == FAMILY


def test_pictures_belong_to_their_views(pool: Pool) -> None:
    """The sky's upper edge tells the setting, whatever size a clean picture was drawn at."""
    clean = [i for i, v in enumerate(pool.views) if v.fault is None]
    assert {pool.views[i].size for i in clean} == {64, 96, 128}
    for i in clean:
        low, high = {"day": (225, 255), "dusk": (120, 170), "night": (0, 45)}[pool.views[i].scene.setting]
        assert low < pool.images[i, :, 0].float().mean() < high


def test_jitter_shifts_each_picture() -> None:
    picture = torch.arange(3 * 20 * 20).reshape(1, 3, 20, 20).float()
    shifted = jitter(picture.repeat(6, 1, 1, 1), np.random.default_rng(0), most=2)
    shifts = set()
    for one in shifted:
        dy, dx = divmod(int(one[0, 10, 10] - picture[0, 0, 10, 10]), 20)
        dy, dx = (dy + 1, dx - 20) if dx > 10 else (dy, dx)
        assert max(abs(dy), abs(dx)) <= 2
        assert torch.equal(one[:, 4:16, 4:16], picture[0, :, 4 + dy : 16 + dy, 4 + dx : 16 + dx])
        shifts.add((dy, dx))
    assert len(shifts) > 1


def test_told_batch_knows_what_is_true(pool: Pool) -> None:
    members = pool.members(np.arange(16))
    texts, target, known = told_batch(pool, members, np.random.default_rng(8))
    assert target.diagonal().all(), "a caption must be true of its own picture"
    assert not (target & ~known).any()
    mentioned = [any(w in text for w in ("night", "dark")) for text in texts]
    day = [pool.views[i].scene.setting == "day" for i in members]
    assert any(mentioned)
    assert any(day)
    for row, is_day in enumerate(day):
        for column, night in enumerate(mentioned):
            assert not (is_day and night and target[row, column])


def test_pairs_prefer_what_was_asked_and_what_is_well_made(pool: Pool) -> None:
    clean = Pool(pool.images, [View(v.scene, None, 0.0, 64, False) for v in pool.views])
    pairs, texts, gaps = draw_pairs(clean, np.random.default_rng(10), 50)
    assert len(texts) == 50
    assert all(a // FAMILY == b // FAMILY and a != b for a, b in pairs.tolist())
    assert set(gaps.tolist()) <= {-2.5, 0.0, 2.5}, "equally well made: only what they show tells them apart"
    assert {-2.5, 2.5} <= set(gaps.tolist())
    same = Pool(pool.images, [replace(v, scene=SCENE) for v in pool.views])
    pairs, _, gaps = draw_pairs(same, np.random.default_rng(10), 50)
    for (a, b), gap in zip(pairs.tolist(), gaps, strict=True):
        assert gap == pytest.approx(0.5 * (same.views[a].rating - same.views[b].rating))
    assert holds(SCENE, {"groups": [], "relation": None, "setting": None, "style": None}) is False


def test_what_is_trained_can_judge(tmp_path: Path) -> None:
    """In a few steps each: the files load as judges, fit their budget, and such a CLIP fails its gate."""
    clip, head, preference = tmp_path / "clip", tmp_path / "aesthetic.safetensors", tmp_path / "preference"
    scratch = tmp_path / "scratch"
    train_clip(clip, seed=0, steps=1, scratch=scratch, families=16)
    train_aesthetic(head, clip=clip, seed=0, steps=30, scratch=scratch, families=8)
    train_preference(preference, clip=clip, seed=0, steps=1, scratch=scratch, families=8)
    files = [file for folder in (clip, preference) for file in folder.iterdir()] + [head]
    assert sum(file.stat().st_size for file in files) < 9e6
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    images = [
        torch.from_numpy(render(SCENE, size, np.random.default_rng(0))).permute(2, 0, 1) for size in (64, 96)
    ]
    prompts = ["a red star left of a blue circle"] * 2
    assert ClipScore(clip).judge(images, prompts).abs().max() <= 100
    assert PreferenceScore(preference).judge(images, prompts).abs().max() <= 1
    rated = AestheticScore(clip, head).judge(images, prompts)
    assert ((rated > 3) & (rated < 8)).all(), (
        "ratings must lie among those it was taught, about a mean of 5.5"
    )
    assert 0.3 < gate_clip(clip, seed=0, number=24)["near misses"] < 0.7
