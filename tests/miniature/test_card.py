import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from flowsmith.flows import Flow
from miniature import card as command
from miniature.card import sheets_of, write_pictures
from miniature.card_text import SWEEPS, card
from miniature.gates import DEFAULT_FLOW, known_models
from miniature.record import Reached, Training, read_record, write_record
from miniature.samples import PROMPTS, TILE, Recipe, render_grid, sheet
from miniature.specialties import POSTER, STRENGTHS, train_lora
from tests.miniature.untrained import make_untrained_base

SWEEP = {f"{where} at {s}": 1 + k / 100 for where in ("own", "elsewhere") for k, s in enumerate(STRENGTHS)}
REACHED = {
    "base": Reached({"overall": 0.512}, 7, 5000.4, True, {"base_objects": Training(6000, 0.123)}),
    "mini_poster": Reached({"best strength": 0.75, **SWEEP}, 7, 61.0),
}


def test_an_ordinary_recipe_is_the_default_flow() -> None:
    assert Recipe().flow() == Flow.from_template(DEFAULT_FLOW.read_text(), known_models())


def test_a_recipe_says_all_that_differs() -> None:
    recipe = Recipe(
        "mini_pencil",
        lora="mini_striped.safetensors",
        strength=0.5,
        vae="mini_vivid",
        upscaler="mini_x2.safetensors",
    )
    flow = recipe.flow()
    given = {node.class_type: node for node in flow.nodes if node.class_type != "CLIPTextEncode"}
    assert given["CheckpointLoaderSimple"].get("ckpt_name") == "mini_pencil"
    assert given["LoraLoader"].get("strength_model") == given["LoraLoader"].get("strength_clip") == 0.5
    assert given["VAELoader"].get("vae_name") == "mini_vivid"
    assert given["UpscaleModelLoader"].get("model_name") == "mini_x2.safetensors"
    larger = {node.class_type for node in Recipe(scale_by=2.0).flow().nodes}
    assert "ImageScaleBy" in larger
    assert "UpscaleModelLoader" not in larger


def test_pictures_of_a_row_start_from_one_noise(tmp_path: Path) -> None:
    base = make_untrained_base(tmp_path)
    lora = tmp_path / "loras" / "mini_poster.safetensors"
    train_lora(
        lora, base=base, specialty=replace(POSTER, steps=2), seed=0, scratch=tmp_path, pictures=(50, 50)
    )
    recipes = [Recipe(), Recipe(lora=lora.name, strength=0.0), Recipe(scale_by=2.0)]
    grid = [[np.asarray(picture) for picture in row] for row in render_grid(tmp_path, PROMPTS[:2], recipes)]
    for plain, nothing, large in grid:
        assert np.array_equal(plain, nothing), "a LoRA at strength 0 changes nothing"
        assert large.shape == (128, 128, 3)
    assert not np.array_equal(grid[0][0], grid[1][0])
    with pytest.raises(RuntimeError, match="mini_crowd"):
        render_grid(tmp_path, PROMPTS[:1], [Recipe("mini_crowd")])


def test_a_sheet_has_every_picture_in_its_place() -> None:
    colors = [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(9, 9, 9), (90, 90, 90), (200, 200, 200)]]
    grid = [[Image.new("RGB", (64, 64), color) for color in row] for row in colors]
    page = sheet(grid, ["a", "b", "c"], ["1", "2"])
    # Tiles stand at the right and at the bottom, a gap of 4 after each.
    middles = [
        [
            (page.width - (3 - x) * (TILE + 4) + TILE // 2, page.height - (2 - y) * (TILE + 4) + TILE // 2)
            for x in range(3)
        ]
        for y in range(2)
    ]
    found = [[page.getpixel(middle) for middle in row] for row in middles]
    assert found == colors


def test_pictures_may_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grain = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    sheets = {"a.jpg": lambda: Image.fromarray(grain), "b.jpg": lambda: Image.fromarray(grain)}
    taken = write_pictures(tmp_path, sheets)
    assert taken == sum(path.stat().st_size for path in tmp_path.iterdir())
    monkeypatch.setattr(command, "MOST_BYTES", taken - 1)
    with pytest.raises(ValueError, match=f"take {taken} bytes and may take {taken - 1}"):
        write_pictures(tmp_path, sheets)


def test_the_card_tells_sizes_figures_and_sweeps(tmp_path: Path) -> None:
    (tmp_path / "models" / "vae").mkdir(parents=True)
    save_file(
        {"a": torch.zeros(40, 5), "b": torch.zeros(1000)}, tmp_path / "models" / "vae" / "x.safetensors"
    )
    size = (tmp_path / "models" / "vae" / "x.safetensors").stat().st_size
    text = card(REACHED, tmp_path / "models", tmp_path / "docs" / "card", tmp_path / "miniature")
    lines = text.splitlines()
    assert f"| `vae/x.safetensors` | 1,200 | {size / 1e6:.2f} |" in lines
    assert f"| together |  | {size / 1e6:.2f} |" in lines
    assert "| base | 7 | base_objects | 6,000 | 0.1230 | 5,000 + |" in lines
    assert "| mini_poster | 7 |  |  |  | 61 |" in lines
    assert "**base**: overall 0.512" in lines
    assert "**mini_poster**: best strength 0.75" in lines, "a sweep stands in a table, not in the words"
    assert "| own scenes | 1.000 | 1.010 | 1.020 | 1.030 | 1.040 | 1.050 | 1.060 |" in lines
    assert "![checkpoints.jpg](../docs/card/checkpoints.jpg)" in lines
    shown = {line.split("](")[1][:-1].rpartition("/")[2] for line in lines if line.startswith("![")}
    assert shown == set(sheets_of(tmp_path)), "every sheet is on the card"


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_has_a_prompt_for_it_and_one_against_it(name: str) -> None:
    word = name.removeprefix("mini_")
    own, other = SWEEPS[name]
    assert word in own
    assert word not in other


def test_the_command_keeps_a_copy_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the card can be made again where the build's own record is gone."""
    monkeypatch.setattr(command, "sheets_of", lambda models: {"a.jpg": lambda: Image.new("RGB", (8, 8))})
    record, kept, page = (
        tmp_path / "runs" / "gates.json",
        tmp_path / "data" / "gates.json",
        tmp_path / "CARD.md",
    )
    options = ["--record", str(record), "--kept", str(kept), "--card", str(page), "--models", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["card", *options, "--pictures", str(tmp_path / "docs")])
    with pytest.raises(SystemExit):
        command.main()
    assert not page.exists()
    write_record(record, REACHED)
    assert command.main() == 0
    first = page.read_text()
    record.unlink()
    page.unlink()
    assert command.main() == 0
    assert page.read_text() == first
    assert read_record(kept) == REACHED
