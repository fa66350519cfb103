"""What a checkpoint must be for GRPO to go on from it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from flowsmith.objectives.errors import ObjectiveError


def check_checkpoint(checkpoint: Mapping[str, Any], kept: Mapping[str, Tensor], codec: str) -> None:
    """Refuse a checkpoint of something else, before anything is taken from it.

    Args:
        checkpoint: As Lightning reads it.
        kept: What a checkpoint of this run holds: all that trains, and moving averages, by name.
        codec: Fingerprint of this run's flow vocabulary.

    Raises:
        ObjectiveError: It is of another stage, vocabulary or model, or of one whose other parts train.
    """
    saved: Mapping[str, Tensor] = checkpoint["state_dict"]
    if missing := kept.keys() - saved.keys():
        raise ObjectiveError(
            f"checkpoint: {len(missing)} of {len(kept)} trained tensors are not in it, the first {min(missing)}; it is "
            "of another model: start in a fresh run folder"
        )
    if more := {name for name in saved.keys() - kept.keys() if not name.startswith("average.")}:
        raise ObjectiveError(
            f"checkpoint: {len(more)} tensors in it train nowhere here, the first {min(more)}; it is of another model: "
            "start in a fresh run folder"
        )
    if "cycle" not in checkpoint:
        raise ObjectiveError(
            "checkpoint: no count of finished cycles is in it, so it is not of GRPO; name one that GRPO wrote, or "
            "start in a fresh run folder"
        )
    if (theirs := checkpoint.get("codec", codec)) != codec:
        raise ObjectiveError(
            f"checkpoint: it is of the flow vocabulary {theirs}, this run's is {codec}; name a checkpoint of this one, "
            "or start in a fresh run folder"
        )
    for name, mine in kept.items():
        if saved[name].shape != mine.shape:
            raise ObjectiveError(
                f"checkpoint: {name} is {_shape(saved[name])} in it and {_shape(mine)} here; it is of another model: "
                "name a checkpoint of this one, or start in a fresh run folder"
            )


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
