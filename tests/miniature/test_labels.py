"""Labels by eye: the same pictures again, verdicts in their places, and agreement counted by hand."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowsmith.execution import RenderResult, RenderTask
from flowsmith.prompts import Prompt, write_prompts
from miniature import labels as tool
from miniature.checker_labels import (
    Agreement,
    Label,
    LabelError,
    compare,
    read_labels,
    wilson,
    with_verdicts,
    write_labels,
)
from miniature.contact_sheets import PER_SHEET, TILE, sheet, write_sheets
from miniature.scenes import Group, Scene, render
from tests.miniature.looking import facts_of

FLOWS = [tool.HERE / "flows" / "default.json", tool.HERE / "flows" / "fast_draft.json"]
SCENES = {
    "test-a": Scene((Group("circle", "blue"),), None, "day", "poster"),
    "test-b": Scene((Group("star", "red", 2),), None, "day", "pencil", "small"),
}
PROMPTS = [Prompt(name, f"words of {name}", "test", "", facts_of(scene)) for name, scene in SCENES.items()]


class Painter:
    """A renderer that paints the first prompt's scene right, the second one's with a star too few."""

    def __init__(self, fails: str = "") -> None:
        self.tasks: list[RenderTask] = []
        self.fails = fails

    def render(self, tasks: Iterable[RenderTask]) -> Iterator[RenderResult]:
        self.tasks = list(tasks)
        for task in reversed(self.tasks):  # results come in any order
            name = task.prompt.rpartition(" ")[2]
            scene = (
                SCENES["test-a"]
                if name == "test-a"
                else Scene((Group("star", "red"),), None, "day", "poster")
            )
            picture = torch.from_numpy(render(scene, 64, np.random.default_rng(task.seed))).permute(2, 0, 1)
            failed = name == self.fails
            yield RenderResult(
                task.sample_id, None if failed else picture, "out of paint" if failed else None, 0.0
            )


def test_finds_the_same_pictures_again(tmp_path: Path) -> None:
    labels = tool.pictures(PROMPTS, FLOWS)
    assert [(x.prompt, x.flow) for x in labels] == [
        (p, f) for p in SCENES for f in ("flows/default.json", "flows/fast_draft.json")
    ]
    assert len({x.seed for x in labels}) == 4
    assert labels == [x for p in PROMPTS for x in tool.pictures([p], FLOWS)]  # whatever stands beside them
    write_labels(tmp_path / "labels.json", labels)
    first, again = Painter(), Painter()
    images = tool.render(labels, PROMPTS, first)
    repeated = tool.render(read_labels(tmp_path / "labels.json"), PROMPTS, again)
    assert [(t.flow.key, t.prompt, t.seed) for t in first.tasks] == [
        (t.flow.key, t.prompt, t.seed) for t in again.tasks
    ]
    assert all(torch.equal(a, b) for a, b in zip(images, repeated, strict=True))


def test_measures_the_checker_against_the_eye(tmp_path: Path) -> None:
    labels = with_verdicts(tool.pictures(PROMPTS, FLOWS), "yn yn", PER_SHEET)  # wrong about two of four
    write_labels(tmp_path / "labels.json", labels)
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    agreement = tool.measure(Painter(), tmp_path / "labels.json", tmp_path / "prompts.jsonl")
    assert agreement == Agreement(2, 4, 0, 0, (labels[1], labels[2]))  # it says yes, yes, no, no


def test_counts_agreement_by_hand() -> None:
    seen = [True, False, True, False, True, None]
    said = [True, False, False, None, None, True]
    labels = [Label(f"p{i}", "f", i, shows) for i, shows in enumerate(seen)]
    assert compare(labels, said) == Agreement(2, 3, 2, 1, (labels[2],))
    text = str(Agreement(190, 200, 6, 4, ()))
    assert "190 of 200 right: 95.0%" in text
    assert "91.0% to 97.3%" in text
    assert "the checker abstained on 6, the eye on 4" in text


def test_interval_of_a_share() -> None:
    # Wilson (1927); 8 of 10 is the example of many textbooks.
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=5e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.278), abs=5e-4)
    assert wilson(10, 10)[1] == pytest.approx(1.0)
    assert wilson(0, 0) == (0.0, 1.0)
    # The ends are where the share that was seen lies 1.959964 deviations from the true one.
    for end in wilson(190, 200):
        assert abs(0.95 - end) == pytest.approx(1.959963985 * (end * (1 - end) / 200) ** 0.5)


def test_verdicts_stand_in_the_sheets_order() -> None:
    labels = [Label("p", "f", i) for i in range(5)]
    read = with_verdicts(labels, "# looked at twice\nyn ?\n\nny # the last sheet\n", per_sheet=3)
    assert [x.shows for x in read] == [True, False, None, False, True]
    assert [x.seed for x in read] == list(range(5))


@pytest.mark.parametrize(
    ("text", "told"),
    [("yny\n", "1 lines"), ("yny\nyyy\n", "line 2"), ("yn\nny\n", "line 1"), ("ynx\nny\n", "line 1")],
)
def test_verdicts_that_do_not_belong_to_the_sheets(text: str, told: str) -> None:
    with pytest.raises(LabelError, match=told):
        with_verdicts([Label("p", "f", i) for i in range(5)], text, per_sheet=3)


def test_pictures_that_cannot_be_made_again(tmp_path: Path) -> None:
    labels = tool.pictures(PROMPTS, FLOWS)
    with pytest.raises(LabelError, match="test-b is not there any more"):
        tool.render(labels, PROMPTS[:1], Painter())
    with pytest.raises(LabelError, match=r"flows/gone\.json is not there any more"):
        tool.render([Label("test-a", "flows/gone.json", 0)], PROMPTS, Painter())
    with pytest.raises(LabelError, match="out of paint"):
        tool.render(labels, PROMPTS, Painter(fails="test-b"))
    with pytest.raises(LabelError, match="lies outside"):
        tool.pictures(PROMPTS, [tmp_path / "mine.json"])
    with pytest.raises(LabelError, match="--sheets"):
        read_labels(tmp_path / "none.json")


def test_sheets_show_every_picture_in_its_place(tmp_path: Path) -> None:
    shades = torch.linspace(20, 230, PER_SHEET + 2).round().to(torch.uint8)
    blue = torch.tensor([0, 0, 200], dtype=torch.uint8)  # no grey, which the letters' edges are
    images = [
        (blue + shade * torch.tensor([1, 0, 0], dtype=torch.uint8))[:, None, None].repeat(1, 32, 48)
        for shade in shades
    ]
    paths = write_sheets(tmp_path, images, ["a red star"] * len(images))
    assert [p.name for p in paths] == ["sheet_01.png", "sheet_02.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sheet_01.png", "sheet_02.png"]
    page = np.asarray(Image.open(paths[0]))
    # Each shade covers its picture: the longer side enlarged to the tile's, proportions kept.
    for shade in shades[:PER_SHEET]:
        rows, columns = np.nonzero((page == [int(shade), 0, 200]).all(-1))
        there = (rows >= np.median(rows) - TILE) & (rows <= np.median(rows) + TILE)
        assert np.ptp(columns[there]) + 1 == TILE
        assert np.ptp(rows[there]) + 1 == TILE * 2 // 3


def test_long_prompts_stay_under_their_picture() -> None:
    image = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    words = "a large striped pink star to the left of two large striped green squares on a dark night, pencil drawing"
    page = np.asarray(sheet([image] * 2, ["", words]))
    left_of_second = page[:, TILE + 12 : TILE + 20]
    assert (left_of_second == 255).all()  # the gap between columns stays white
    right_of_second = page[:, 2 * (TILE + 10) + 2 :]
    assert (right_of_second == 255).all()


def test_command_line_goes_from_sheets_to_agreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    monkeypatch.setattr(tool, "PROMPTS", tmp_path / "prompts.jsonl")
    monkeypatch.setattr(tool, "LABELS", tmp_path / "data" / "labels.json")
    monkeypatch.setattr(tool, "Executor", lambda models: Painter())
    sheets = tmp_path / "sheets"
    tool.main(["--sheets", str(sheets), "--dense", *map(str, FLOWS)])
    (sheets / "eye.txt").write_text("yy?y\n")
    tool.main(["--verdicts", str(sheets / "eye.txt")])
    capsys.readouterr()
    tool.main([])
    out = capsys.readouterr().out
    assert "2 of 3 right" in out
    assert "the eye on 1" in out
    assert "flows/fast_draft.json test-b seed" in out
    assert "the eye says yes" in out


def test_the_usual_flows_are_there_and_do_what_the_checker_must_see_through() -> None:
    files = [tool.HERE / "flows" / f"{name}.json" for name in tool.FLOWS]
    texts = [file.read_text() for file in files]
    painter = Painter()
    tool.render(tool.pictures(PROMPTS[:1], files), PROMPTS, painter)  # every file is a flow that can be read
    assert len({task.flow.key for task in painter.tasks}) == len(files)
    assert sum("ImageSharpen" in text for text in texts) >= 2
    assert sum("ImageUpscaleWithModel" in text for text in texts) >= 2
    assert len(texts) * tool.NUMBER >= 200
