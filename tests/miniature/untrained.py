"""The miniature's networks with random weights, laid out as the build lays out trained ones."""

from pathlib import Path

import torch

from miniature.diffusion import new_unet, save_checkpoint
from miniature.text_encoder import make_tokenizer, new_text_encoder
from miniature.vae import new_vae


def make_untrained_vae(folder: Path) -> Path:
    """Write an autoencoder that knows nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = new_vae()
    vae.register_to_config(scaling_factor=2.0)
    vae.half().save_pretrained(folder)
    return folder


def make_untrained_base(root: Path) -> Path:
    """Write ``checkpoints/mini_base`` under a root; return its folder."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTokenizer

    make_tokenizer(root / "tokenizer", captions=300)
    words = CLIPTokenizer.from_pretrained(root / "tokenizer")
    vae = AutoencoderKL.from_pretrained(make_untrained_vae(root / "first_vae"))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        unet, encoder = new_unet(), new_text_encoder(words)
    folder = root / "checkpoints" / "mini_base"
    save_checkpoint(folder, unet, encoder, words, vae)
    return folder
