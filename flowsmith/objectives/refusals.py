"""Settings of an objective that cannot work, each with the reason and what to set instead."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from flowsmith.objectives.errors import ObjectiveError

if TYPE_CHECKING:
    from flowsmith.objectives.objective import Objective


def refuse(objective: Objective) -> None:
    """Raise `ObjectiveError` if settings leave their ranges, contradict each other, or would do nothing."""
    _names(objective)
    _ranges(objective)
    _unused(objective)
    _contradictions(objective)


def _names(o: Objective) -> None:
    """Check choices, which a caller without a type checker may have misspelt, and that numbers are numbers."""
    hints = get_type_hints(type(o))
    for field in fields(o):
        value, hint = getattr(o, field.name), hints[field.name]
        if get_origin(hint) is Literal and value not in (choices := get_args(hint)):
            raise ObjectiveError(f"{field.name}={value}: there is no such; use one of {', '.join(choices)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ObjectiveError(f"{field.name}={value} is not finite; use a number")


def _ranges(o: Objective) -> None:
    if not 0 < o.epsilon_low <= 1 or not o.epsilon_high > 0:
        raise ObjectiveError(
            f"epsilon_low={o.epsilon_low}, epsilon_high={o.epsilon_high}: the ratio is kept within "
            "1 - epsilon_low .. 1 + epsilon_high; use 0 < epsilon_low <= 1 and epsilon_high > 0"
        )
    if o.beta < 0:
        raise ObjectiveError(f"beta={o.beta} would reward leaving the reference; use beta >= 0")
    if o.entropy_bonus < 0:
        raise ObjectiveError(f"entropy_bonus={o.entropy_bonus} would punish entropy; use entropy_bonus >= 0")
    if not o.dual_clip > 1:
        raise ObjectiveError(
            f"dual_clip={o.dual_clip}: bad tokens at ratio 1, all of a first update, would teach nothing; use "
            "dual_clip > 1"
        )
    if not 0 < o.top_entropy <= 1:
        raise ObjectiveError(f"top_entropy={o.top_entropy} is a share of tokens; use 0 < top_entropy <= 1")
    for name in (
        "advantage_epsilon", "temperature_positive", "temperature_negative", "kl_target", "kl_horizon",
        "entropy_target", "entropy_horizon",
    ):  # fmt: skip
        value = getattr(o, name)
        if value is not None and not value > 0:
            raise ObjectiveError(f"{name}={value} divides; use {name} > 0")


def _unused(o: Objective) -> None:
    """Refuse a changed setting that the chosen parts never look at."""
    readers = {
        "dual_clip": ("surrogate", ("dual_clip",)),
        "temperature_positive": ("surrogate", ("sapo",)),
        "temperature_negative": ("surrogate", ("sapo",)),
        "epsilon_low": ("surrogate", ("clip", "dual_clip", "cispo")),
        "epsilon_high": ("surrogate", ("clip", "dual_clip", "cispo")),
    }
    for field in fields(o):
        if field.name not in readers or getattr(o, field.name) == field.default:
            continue
        part, kinds = readers[field.name]
        if getattr(o, part) not in kinds:
            raise ObjectiveError(
                f"{field.name}={getattr(o, field.name)} with {part}={getattr(o, part)}, which does not read "
                f"it; use {part}={' or '.join(kinds)}, or leave {field.name} at {field.default}"
            )


def _contradictions(o: Objective) -> None:
    if o.ratio == "sequence" and o.aggregation != "sample_mean":
        raise ObjectiveError(
            f"ratio=sequence with aggregation={o.aggregation}: one ratio a sequence would weigh a sequence by "
            "its length; use aggregation=sample_mean"
        )
    if o.ratio == "sequence" and o.top_entropy < 1:
        raise ObjectiveError(
            f"ratio=sequence with top_entropy={o.top_entropy}: one ratio a sequence teaches all its tokens or "
            "none; use ratio=token, or top_entropy=1"
        )
    if o.beta > 0 and o.kl_in == "loss" and o.kl == "k1" and not o.kl_correction:
        raise ObjectiveError(
            f"kl=k1 with beta={o.beta} in the loss: the gradient of k1 has mean zero and pulls nowhere; use "
            "kl=k3 or k2, kl_correction=true, or kl_in=reward"
        )
    if o.kl_correction and o.kl == "k2":
        raise ObjectiveError(
            "kl=k2 with kl_correction=true: weighed by the ratio, the gradient of an unbiased estimator becomes "
            "exact, and k2 is biased; use kl=k3 or k1, or kl_correction=false"
        )
    if o.kl_correction and o.kl_in == "reward":
        raise ObjectiveError(
            "kl_correction=true with kl_in=reward, where the KL is that of the policy that sampled and its ratio "
            "is 1; use kl_in=loss, or kl_correction=false"
        )
    if o.beta > 0 and o.kl_in == "reward" and o.kl != "k1":
        raise ObjectiveError(
            f"kl={o.kl} with beta={o.beta} in the reward: near the reference it punishes tokens that became "
            "likelier and unlikelier alike, so that its pull vanishes; use kl=k1, or kl_in=loss"
        )
    if o.kl_target is not None and not o.beta > 0:
        raise ObjectiveError(
            f"kl_target={o.kl_target} with beta={o.beta}: beta is adapted by factors and would stay 0; use "
            "beta > 0"
        )
    if o.entropy_target is not None and not o.entropy_bonus > 0:
        raise ObjectiveError(
            f"entropy_target={o.entropy_target} with entropy_bonus={o.entropy_bonus}: the bonus is adapted by "
            "factors and would stay 0; use entropy_bonus > 0"
        )
