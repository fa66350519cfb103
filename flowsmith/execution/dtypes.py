"""Number types of the networks of a model."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Dtypes:
    """What each kind of network is loaded in.

    Attributes:
        network: The denoising network.
        vae: The autoencoder; SDXL's overflows in float16.
        clip: CLIP text networks, which are small.
        t5: T5, which is large, and overflows in float16.
    """

    network: torch.dtype = torch.float32
    vae: torch.dtype = torch.float32
    clip: torch.dtype = torch.float32
    t5: torch.dtype = torch.float32

    @classmethod
    def on(cls, device: torch.device, network: torch.dtype | None = None) -> "Dtypes":
        """Return the types for a device: half precision on CUDA, of bfloat16's range where it is needed.

        Args:
            device: Where networks run.
            network: Type of the denoising network; by default float16 on CUDA, float32 elsewhere.
        """
        cuda = device.type == "cuda"
        chosen = network or (torch.float16 if cuda else torch.float32)
        if chosen != torch.float16:
            return cls(chosen, chosen, t5=chosen)
        wide = torch.bfloat16 if not cuda or torch.cuda.is_bf16_supported() else torch.float32
        return cls(chosen, wide, t5=wide)
