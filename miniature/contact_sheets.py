"""Contact sheets: numbered pictures with their prompts, large enough to be judged by eye."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from flowsmith.files import atomic_write

COLUMNS, ROWS = 7, 3
PER_SHEET = COLUMNS * ROWS
TILE = 150  # pixels of a picture's longer side
_GAP, _LINE, _FONT = 10, 13, 11  # pixels
_LINES, _LETTERS = 5, 27  # of the words under a picture


def write_sheets(folder: Path, images: Sequence[Tensor], words: Sequence[str]) -> list[Path]:
    """Write sheets of `PER_SHEET` pictures in order, numbered from 1 on every sheet.

    Args:
        folder: Where "sheet_01.png" and so on go.
        images: uint8, 3 x height x width each.
        words: What stands under each.

    Returns:
        The files.
    """
    paths = []
    for start in range(0, len(images), PER_SHEET):
        path = folder / f"sheet_{start // PER_SHEET + 1:02d}.png"
        page = sheet(images[start : start + PER_SHEET], words[start : start + PER_SHEET])
        with atomic_write(path) as temporary:
            page.save(temporary, format="PNG")
        paths.append(path)
    return paths


def sheet(images: Sequence[Tensor], words: Sequence[str]) -> Image.Image:
    """Lay up to `PER_SHEET` pictures on one sheet."""
    step = (TILE + _GAP, TILE + _LINES * _LINE + _GAP)
    page = Image.new("RGB", (COLUMNS * step[0] + _GAP, ROWS * step[1] + _GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(_FONT)
    for index, (image, text) in enumerate(zip(images, words, strict=True)):
        left, top = (_GAP + step[0] * (index % COLUMNS), _GAP + step[1] * (index // COLUMNS))
        picture = Image.fromarray(np.asarray(image.permute(1, 2, 0)))
        scale = TILE / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        page.paste(picture.resize(size, Image.Resampling.BICUBIC), (left, top))
        lines = textwrap.wrap(f"{index + 1}. {text}", _LETTERS)[:_LINES]
        draw.multiline_text((left, top + TILE + 2), "\n".join(lines), fill="black", font=font, spacing=1)
    return page
