"""`python -m miniature.card`: write `miniature/CARD.md`, the model card of everything that the build made.

Figures come from what the build recorded (`runs/miniature/gates.json`, copied to `miniature/data/gates.json`, so that
the card can be made again without the build), pictures are rendered anew.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from PIL import Image

from flowsmith.files import atomic_write
from miniature.card_text import SWEEPS, card
from miniature.record import read_record, write_record
from miniature.samples import PROMPTS, Recipe, render_grid, sheet
from miniature.specialties import STRENGTHS

HERE = Path(__file__).parent
MOST_BYTES = 400_000  # of all pictures together
_QUALITY = 85

Sheets = Mapping[str, Callable[[], Image.Image]]


def main() -> int:
    """Write the card, its pictures and the copy of the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=HERE / "weights", help="the weights")
    parser.add_argument("--record", type=Path, default=Path("runs/miniature/gates.json"), help="of the build")
    parser.add_argument("--kept", type=Path, default=HERE / "data" / "gates.json", help="copy of the record")
    parser.add_argument("--card", type=Path, default=HERE / "CARD.md")
    parser.add_argument("--pictures", type=Path, default=HERE.parent / "docs" / "card")
    options = parser.parse_args()
    reached = read_record(options.record) or read_record(options.kept)
    if not reached:
        parser.error(
            f"neither {options.record} nor {options.kept} holds what the build reached; run `python -m "
            "miniature.build` first, or name its record with --record"
        )
    write_record(options.kept, reached)
    total = write_pictures(options.pictures, sheets_of(options.models))
    with atomic_write(options.card) as temporary:
        temporary.write_text(card(reached, options.models, options.pictures, options.card.parent), "utf-8")
    print(f"{options.card}: written, with {total / 1000:.0f} kB of pictures")
    return 0


def sheets_of(models: Path) -> Sheets:
    """Return how each sheet of pictures is made, by file name."""
    numbers = [str(k + 1) for k in range(len(PROMPTS))]

    def checkpoints() -> Image.Image:
        names = ["mini_base", "mini_pencil", "mini_crowd"]
        grid = render_grid(models, PROMPTS, [Recipe(name) for name in names])
        # Prompts side by side: the sheet is wide rather than long.
        return sheet(list(zip(*grid, strict=True)), numbers, [name[5] for name in names])

    def sweep(name: str) -> Image.Image:
        recipes = [Recipe(lora=f"{name}.safetensors", strength=strength) for strength in STRENGTHS]
        grid = render_grid(models, SWEEPS[name], recipes)
        rows = [str(PROMPTS.index(prompt) + 1) for prompt in SWEEPS[name]]
        return sheet(grid, [str(strength) for strength in STRENGTHS], rows)

    def autoencoders() -> Image.Image:
        grid = render_grid(models, PROMPTS, [Recipe(), Recipe(vae="mini_vivid")])
        return sheet(list(zip(*grid, strict=True)), numbers, ["b", "v"])

    def upscaling() -> Image.Image:
        grid = render_grid(
            models, PROMPTS[:6], [Recipe(scale_by=2.0), Recipe(upscaler="mini_x2.safetensors")]
        )
        return sheet(list(zip(*grid, strict=True)), numbers[:6], ["b", "x"])

    return {
        "checkpoints.jpg": checkpoints,
        **{f"{name}.jpg": partial(sweep, name) for name in SWEEPS},
        "vae.jpg": autoencoders,
        "upscaler.jpg": upscaling,
    }


def write_pictures(folder: Path, sheets: Sheets) -> int:
    """Make and write the sheets and return the bytes that they take.

    Raises:
        ValueError: They take more than the repository is to carry.
    """
    total = 0
    for name, make in sheets.items():
        with atomic_write(folder / name) as temporary:
            make().save(temporary, format="JPEG", quality=_QUALITY, optimize=True)
        total += (folder / name).stat().st_size
    if total > MOST_BYTES:
        raise ValueError(
            f"the card's pictures take {total} bytes and may take {MOST_BYTES}; lower their quality or tile"
        )
    return total


if __name__ == "__main__":
    sys.exit(main())
