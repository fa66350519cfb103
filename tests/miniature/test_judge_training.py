from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from flowsmith.metrics import AestheticScore, ClipScore, PreferenceScore
from miniature.judges import steps
from miniature.judges.aesthetic import gate_aesthetic, train_aesthetic
from miniature.judges.clip import gate_clip, train_clip
from miniature.judges.contrast import contrastive_loss, told_batch
from miniature.judges.generated import make_generated
from miniature.judges.images import FAMILY, SIZE, Pool, View, jitter, make_pool, near_misses, tell_apart
from miniature.judges.preference import gate_preference, train_preference
from miniature.judges.scene_facts import holds
from miniature.scenes import Group, Scene, render, sample_scene
from tests.miniature.painted import Painted

SCENE = Scene((Group("star", "red"), Group("circle", "blue")), "left", "day", "poster")


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(15, seed=1)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        painted, folder = Painted(), tmp_path_factory.mktemp("generated") / "pictures"
        patch.setattr("miniature.judges.generated.Executor", painted.executor)
        patch.setattr("miniature.judges.generated.read_scene", painted.read)
        make_generated(folder, models=Path("none"), seed=3, number=6)
        yield folder


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


def test_near_miss_captions_are_wrong_answers_for_pictures_alone() -> None:
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(5))
    target = torch.eye(4, 7, dtype=torch.bool)
    own = torch.arange(4)
    expected = (cross_entropy(logits, own) + cross_entropy(logits[:, :4].T, own)) / 2
    torch.testing.assert_close(contrastive_loss(logits, target, torch.ones(4, 7, dtype=torch.bool)), expected)


def test_pool_is_made_again_alike(pool: Pool) -> None:
    again = make_pool(15, seed=1)
    assert again.views == pool.views
    assert torch.equal(again.images, pool.images)
    assert pool.images.shape == (15 * FAMILY, 3, SIZE, SIZE)
    assert SIZE == 112
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


def test_near_misses_differ_in_one_fact_each() -> None:
    found = list(near_misses(SCENE, np.random.default_rng(3)))
    assert len(found) == 8, "one for every kind of fact"
    assert all(near != SCENE for near in found)
    looks = [(s.setting, s.style, s.size, s.texture) for s in (SCENE, *found)]
    assert sum(look != looks[0] for look in looks) == 4


def test_a_near_miss_is_told_in_the_same_words_but_one() -> None:
    rng, shared, misses = np.random.default_rng(9), [], 0
    for _ in range(200):
        scene = sample_scene(rng)
        told, miss = tell_apart(scene, rng)
        assert holds(scene, told.facts) is True
        if miss:
            misses += 1
            assert told.split == miss.split == "train"
            assert holds(scene, miss.facts) is False
            words = [text.replace(",", "").split() for text in (told.text, miss.text)]
            shared.append(len(set(words[0]) & set(words[1])) / len(set(words[0])))
    assert misses > 190
    assert np.mean(shared) > 0.75


def test_told_batch_knows_what_is_true(pool: Pool) -> None:
    members = pool.members(np.arange(15))
    views = [pool.views[i] for i in members]
    texts, target, known = told_batch(views, np.random.default_rng(8), near=20)
    assert target.diagonal().all(), "a caption must be true of its own picture"
    assert not (target & ~known).any()
    assert len(views) + 15 < len(texts) == target.shape[1] <= len(views) + 20
    for miss in range(len(views), len(texts)):
        assert not target[len(views) - 20 :, miss].all(), "a near miss is false of its own picture"
    mentioned = [any(w in text for w in ("night", "dark")) for text in texts]
    day = [view.scene.setting == "day" for view in views]
    assert any(mentioned)
    assert any(day)
    for row, is_day in enumerate(day):
        for column, night in enumerate(mentioned):
            assert not (is_day and night and target[row, column])


def test_nothing_is_said_of_how_a_generated_picture_is_made() -> None:
    """Praise or a fault can only be said of what is known; an added fault is."""
    bare, spoilt = (View(SCENE, fault, 0.9, 64, True, generated=True) for fault in (None, "noisy"))
    rng = np.random.default_rng(2)
    texts = [text for _ in range(10) for text in told_batch([bare] * 4, rng)[0]]
    assert not any(word in text for text in texts for word in ("sharp", "clean", "vivid", "noisy"))
    texts = [text for _ in range(10) for text in told_batch([spoilt] * 4, rng)[0]]
    assert 5 < sum("noisy" in text or "grainy" in text for text in texts) < 30


def test_steps_name_their_trainings() -> None:
    """A step is forgotten by its name, so its training must be called alike; the generated pictures come in between."""
    made = steps(Path("out"), vae=None, models=Path("models"), seed=0, scratch=Path("scratch"))
    assert [step.name for step in made] == [
        "clip",
        "clip_longer",
        "generated",
        "clip_generated",
        "aesthetic",
        "preference",
        "preference_held_out",
    ]
    assert all(step.states() == (step.name,) for step in made)
    assert all(step.least for step in made)


def test_what_is_trained_can_judge(tmp_path: Path, generated: Path) -> None:
    """In a few steps each: the files load as judges, fit their budget, and such a CLIP fails its gate."""
    scratch, preference = tmp_path / "scratch", tmp_path / "preference"
    first, clip, head = scratch / "clip", tmp_path / "clip", tmp_path / "aesthetic.safetensors"
    train_clip(first, name="clip", seed=0, steps=1, scratch=scratch, families=16)
    train_clip(
        clip,
        name="clip_generated",
        seed=0,
        steps=1,
        scratch=scratch,
        families=8,
        start=first,
        generated=generated,
    )
    train_aesthetic(head, clip=clip, seed=0, steps=30, scratch=scratch, families=8, generated=generated)
    train_preference(
        preference, clip=clip, half=0, seed=0, steps=1, scratch=scratch, families=8, generated=generated
    )
    trained = {"clip.pt", "clip_generated.pt", "aesthetic.pt", "preference.pt"}
    assert {file.name for file in scratch.glob("*.pt")} == trained, "as the build's steps are called"
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
    assert 0.2 < gate_clip(clip, seed=0, number=10)["near misses"] < 0.8
    figures = gate_preference(preference, half=0, seed=0, generated=generated, number=40)
    assert figures["clear pairs"] < 0.8
    assert {f"{kind}{pairs} pairs" for kind in ("", "generated, ") for pairs in ("all", "clear")} == set(
        figures
    )
    assert gate_aesthetic(clip, head, seed=0, number=6)["rank correlation"] < 0.9
