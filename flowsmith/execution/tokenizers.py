"""Tokenizers: CLIP's from the word list that open_clip carries, T5's from a folder or the hub."""

import gzip
import importlib.util
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from flowsmith.execution.errors import ModelFileError

T5_TOKENIZER = "google-t5/t5-base"
"""Hub id of T5's tokenizer; all sizes of T5 and T5 1.1 have the same one."""


@cache
def clip_tokenizer() -> Any:
    """Return the tokenizer of OpenAI's CLIP, which OpenCLIP's networks share; nothing is fetched."""
    from transformers import CLIPTokenizer

    spec = importlib.util.find_spec("open_clip")  # found, not imported: that would take seconds
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError("a single-file checkpoint needs CLIP's word list; install open_clip_torch")
    file = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    # The 256 bytes as printable characters: those that are printable first, the rest moved beyond 255.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + k) for k in range(256 - len(printable))]
    words = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *(merge.replace(" ", "") for merge in merges),
    ]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def clip_tokenizer_of(folder: Path) -> Any:
    """Read the CLIP tokenizer of a diffusers folder.

    Raises:
        ModelFileError: There is none.
    """
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises many kinds for one cause
        raise ModelFileError(f"{folder}: no readable CLIP tokenizer ({error}); save one there") from error


@cache
def t5_tokenizer(source: str) -> Any:
    """Return T5's tokenizer, whose word list no package carries.

    Args:
        source: A folder with its tokenizer.json, or a hub id.

    Raises:
        ModelFileError: There is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:  # the library raises many kinds for one cause
        told = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"T5's tokenizer is not at {source} ({type(error).__name__}: {told}); put its tokenizer.json and "
            f"tokenizer_config.json into text_encoders/t5_tokenizer/ of the models folder, as `hf download "
            f"{T5_TOKENIZER} tokenizer.json tokenizer_config.json --local-dir "
            "models/text_encoders/t5_tokenizer` does"
        ) from error
