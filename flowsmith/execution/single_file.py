"""Checkpoints of one file, as ComfyUI and most model sites keep them: denoising network, text encoders and VAE.

The shapes of the networks are read off the tensors, so no configuration is fetched from anywhere.
"""

from dataclasses import replace
from pathlib import Path

from flowsmith.execution.diffusion_files import tensors_diffusion_model
from flowsmith.execution.dtypes import Dtypes
from flowsmith.execution.model_files import read_tensors
from flowsmith.execution.models import Checkpoint
from flowsmith.execution.text import TextEncoder
from flowsmith.execution.text_files import checkpoint_text
from flowsmith.execution.text_uses import join_of
from flowsmith.execution.tokenizers import T5_TOKENIZER
from flowsmith.execution.vae_files import checkpoint_vae, tensors_vae


def read_single_file(
    path: Path, key: str, dtypes: Dtypes | None = None, tokenizer: str = T5_TOKENIZER
) -> Checkpoint:
    """Load a checkpoint of Stable Diffusion 1, 2, XL, 3 or Flux.1 from one file.

    Its VAE may be the usual one or a TAESD.

    Args:
        path: The file.
        key: Becomes the key of each part.
        dtypes: Number types; float32 by default.
        tokenizer: Folder or hub id of T5's tokenizer.

    Raises:
        ModelFileError: The file is broken, a part of it incomplete, or it is of another family of models. A part
            that is wholly missing is None.
    """
    dtypes = dtypes or Dtypes()
    tensors = read_tensors(path)
    model = tensors_diffusion_model(tensors, key, path, dtypes.network)
    towers = checkpoint_text(model.family, tensors, path, tokenizer, dtypes)
    join = join_of(model.family, towers, model.network)
    text = TextEncoder(key, towers, join, key) if towers else None
    own = checkpoint_vae(tensors)
    vae = tensors_vae(own, key, path, dtypes.vae) if own else None
    if vae is not None:
        model = replace(model, latent=replace(model.latent, factor=vae.latent.factor))
    return Checkpoint(model, text, vae)
