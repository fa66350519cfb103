"""Nodes between IMAGEs and LATENTs."""

from collections.abc import Hashable, Sequence
from typing import Self

from torch import Tensor

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.models import Vae
from flowsmith.execution.nodes.registry import Outputs, in_one, node
from flowsmith.execution.nodes.values import Latent, latent_shape, realised


@node("VAEDecode")
class VAEDecode:
    """The image of latents."""

    samples: Latent
    vae: Vae

    def group(self) -> Hashable:
        """Latents of one size go together, whether they are empty or not."""
        return self.vae.key, latent_shape(self.samples, self.vae.latent)

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Decode the rows' latents together."""
        vae = rows[0].vae
        return in_one(vae.decode, [realised(row.samples, vae.latent).to(vae.device) for row in rows])


@node("VAEEncode")
class VAEEncode:
    """The latents of an image."""

    pixels: Tensor
    vae: Vae

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Encode the rows' images together."""
        return in_one(rows[0].vae.encode, [row.pixels for row in rows])


@node("VAEDecodeTiled")
class VAEDecodeTiled:
    """The image of latents, computed in tiles, so that memory does not follow its size."""

    samples: Latent
    vae: Vae
    tile_size: int = 512
    overlap: int = 64

    def run(self, library: ModelLibrary) -> Outputs:
        """Decode the latents."""
        latents = realised(self.samples, self.vae.latent).to(self.vae.device)
        return (self.vae.decode_tiled(latents, self.tile_size, self.overlap),)


@node("VAEEncodeTiled")
class VAEEncodeTiled:
    """The latents of an image, computed in tiles."""

    pixels: Tensor
    vae: Vae
    tile_size: int = 512
    overlap: int = 64

    def run(self, library: ModelLibrary) -> Outputs:
        """Encode the image."""
        return (self.vae.encode_tiled(self.pixels, self.tile_size, self.overlap),)
