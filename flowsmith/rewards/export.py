"""An ensemble as a folder: Hugging Face config, one safetensors file per member, tokenizer, codec, and their hashes."""

import json
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from flowsmith.files import atomic_write, file_hash
from flowsmith.rewards.ensemble import RewardEnsemble
from flowsmith.rewards.pairs import PairTokenizer, RewardsError
from flowsmith.rewards.surrogate import Surrogate, drop_pooler

MANIFEST = "ensemble.json"
_NUMBERS = ("target_mean", "target_std", "std_scale")
E = TypeVar("E", bound=RewardEnsemble)


class ExportError(RewardsError):
    """An exported ensemble is missing, incomplete or not what was written."""


def export_ensemble(ensemble: RewardEnsemble, folder: Path) -> None:
    """Write an ensemble; what was there before stays until all is written."""
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        ensemble.tokenizer.save(temporary)
        first: Surrogate = ensemble.members[0]  # type: ignore[assignment]
        first.encoder.config.save_pretrained(temporary)
        for number, member in enumerate(ensemble.members):
            weights = {name: value.detach().cpu().contiguous() for name, value in member.state_dict().items()}
            save_file(weights, temporary / f"member_{number}.safetensors")
        content = {
            "members": len(ensemble.members),
            "prior_scale": first.prior_scale,
            "codec": ensemble.tokenizer.codec.fingerprint,
            **{name: float(getattr(ensemble, name)) for name in _NUMBERS},
            "files": {path.name: file_hash(path) for path in sorted(temporary.iterdir())},
        }
        (temporary / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_ensemble(folder: Path, kind: type[E]) -> E:
    """Read an ensemble and check every file against its hash.

    Raises:
        ExportError: The folder is missing, incomplete, or differs from what was written.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in content["files"].items():
            if not (folder / name).exists() or file_hash(folder / name) != expected:
                raise ExportError(
                    f"{folder / name}: missing, or not what the export wrote; train again with "
                    "`python train.py --config reward.yaml`, or copy the whole folder again"
                )
        tokenizer = PairTokenizer.load(folder)
        if tokenizer.codec.fingerprint != content["codec"]:
            raise ExportError(
                f"{folder}: it was trained for codec {content['codec']}, its files hold {tokenizer.codec.fingerprint}; "
                "train again with `python train.py --config reward.yaml`"
            )
        members = [
            _load_member(folder, number, tokenizer, content["prior_scale"])
            for number in range(content["members"])
        ]
        ensemble = kind(tokenizer, members)
        for name in _NUMBERS:
            getattr(ensemble, name).fill_(content[name])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ExportError(
            f"{folder}: no readable reward ensemble ({error}); run `python train.py --config reward.yaml`"
        ) from error
    return ensemble.eval()


def _load_member(folder: Path, number: int, tokenizer: PairTokenizer, prior_scale: float) -> Surrogate:
    from transformers import AutoConfig, AutoModel

    network = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    drop_pooler(network)
    vocabulary = tuple(tokenizer.codec.vocabulary)
    member = Surrogate(network, tokenizer.ids, vocabulary, prior_scale, torch.Generator())
    member.load_state_dict(load_file(folder / f"member_{number}.safetensors"))
    return member
