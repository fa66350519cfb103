"""Pictures on disk by the name of their sample: they outlast a stop, and one process finds those of another."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowsmith.designers.protocol import stable_hash
from flowsmith.files import atomic_write


class KeptPictures:
    """A folder of PNG files, one a sample.

    Args:
        folder: Where they lie; made when the first one comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sample_id: str) -> Path:
        """Return where a sample's picture lies, or would; ids hold what no file name may."""
        return self._folder / f"{stable_hash(sample_id):016x}.png"

    def keep(self, sample_id: str, picture: Tensor) -> None:
        """Write a picture (uint8, 3 x height x width), whole or not at all."""
        with atomic_write(self.path(sample_id)) as temporary:
            Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()).save(temporary, "PNG")

    def get(self, sample_id: str) -> Tensor | None:
        """Return the picture (uint8, 3 x height x width), or None if none was kept."""
        path = self.path(sample_id)
        if not path.is_file():
            return None
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
