"""The published objectives by name, each in the settings of its paper."""

from dataclasses import fields, replace
from typing import Any, Literal, TypedDict, cast

from flowsmith.objectives.advantages import AdvantageKind
from flowsmith.objectives.aggregation import Aggregation
from flowsmith.objectives.errors import ObjectiveError
from flowsmith.objectives.kl import KLEstimator, KLPlace
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.ratio import RatioLevel
from flowsmith.objectives.surrogate import SurrogateKind

Preset = Literal["grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo", "sapo", "rloo"]

PRESETS: dict[Preset, Objective] = {
    # DeepSeekMath, arXiv 2402.03300; it gives no epsilon, 0.2 is PPO's.
    "grpo": Objective(beta=0.04),
    # arXiv 2503.20783: neither the deviation nor the length divides.
    "dr_grpo": Objective(advantage="unscaled", aggregation="constant"),
    # arXiv 2503.14476. Its dynamic sampling belongs to the rollouts, its soft punishment to the reward
    # (`truncation.overlong_punishment`).
    "dapo": Objective(epsilon_high=0.28, aggregation="token_mean", mask_truncated=True),
    # What TRL calls so: GRPO with the token mean of the local batch. (The beta normalisation of arXiv
    # 2506.02864 is of binary rewards and no part of it.)
    "bnpo": Objective(aggregation="batch_token_mean"),
    # arXiv 2507.18071.
    "gspo": Objective(ratio="sequence", epsilon_low=3e-4, epsilon_high=4e-4),
    # arXiv 2506.13585: no lower bound. It tunes the upper one without naming it; a weight of 5 is that of
    # arXiv 2510.13786.
    "cispo": Objective(surrogate="cispo", epsilon_low=1.0, epsilon_high=4.0, aggregation="token_mean"),
    # arXiv 2511.20347.
    "sapo": Objective(surrogate="sapo", temperature_positive=1.0, temperature_negative=1.05),
    # arXiv 2402.14740: the sum over a sequence's tokens, here over a constant; one update a rollout has ratio
    # 1, so that the clipping is never met.
    "rloo": Objective(advantage="leave_one_out", aggregation="constant", kl="k1", kl_in="reward", beta=0.05),
}


class Changes(TypedDict, total=False):
    """Settings of an `Objective` that replace a preset's."""

    advantage: AdvantageKind
    advantage_epsilon: float
    ratio: RatioLevel
    surrogate: SurrogateKind
    epsilon_low: float
    epsilon_high: float
    dual_clip: float
    temperature_positive: float
    temperature_negative: float
    aggregation: Aggregation
    kl: KLEstimator
    kl_in: KLPlace
    kl_correction: bool
    beta: float
    kl_target: float | None
    kl_horizon: float
    entropy_bonus: float
    entropy_target: float | None
    entropy_horizon: float
    top_entropy: float
    mask_truncated: bool


def objective(preset: Preset = "grpo", changes: Changes | None = None) -> Objective:
    """Return a published objective, changed where wanted.

    Args:
        preset: Its name.
        changes: Settings that replace the published ones.

    Raises:
        ObjectiveError: There is no such preset or setting, or the settings cannot work together.
    """
    if preset not in PRESETS:
        raise ObjectiveError(f"preset={preset}: there is none of that name; use one of {', '.join(PRESETS)}")
    known = [field.name for field in fields(Objective)]
    unknown = sorted(set(changes or {}) - set(known))
    if unknown:
        raise ObjectiveError(f"changes: {', '.join(unknown)} is no setting; use one of {', '.join(known)}")
    return replace(PRESETS[preset], **cast(dict[str, Any], changes or {}))
