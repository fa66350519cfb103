from pathlib import Path

import pytest
import torch
from PIL import Image

from flowsmith.evaluation.kept_pictures import KeptPictures


def test_a_picture_comes_back_exactly_whatever_its_sample_is_called(tmp_path: Path) -> None:
    noise = torch.Generator().manual_seed(0)
    pictures = {
        name: torch.randint(0, 256, (3, 5, 7), generator=noise, dtype=torch.uint8)
        for name in ("GRPO w=1.5/p1/0", "GRPO w=1.5/p1/1", "../../outside/0", "x" * 500)
    }
    kept = KeptPictures(tmp_path / "new")
    assert kept.get("GRPO w=1.5/p1/0") is None
    for name, picture in pictures.items():
        kept.keep(name, picture)
    for name, picture in pictures.items():
        found = KeptPictures(tmp_path / "new").get(name)
        assert found is not None
        assert found.equal(picture)
    assert len(list((tmp_path / "new").iterdir())) == 4


def test_a_stopped_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(image: Image.Image, path: Path, kind: str) -> None:
        path.write_bytes(b"\x89PNG half")
        raise KeyboardInterrupt

    monkeypatch.setattr("PIL.Image.Image.save", half)
    with pytest.raises(KeyboardInterrupt):
        KeptPictures(tmp_path).keep("a", torch.zeros(3, 2, 2, dtype=torch.uint8))
    assert list(tmp_path.iterdir()) == []
