"""The published objectives are what their papers say, and YAML can change every setting, by its type."""

from dataclasses import asdict, fields, replace
from typing import Any, get_args, get_type_hints

import pytest
from jsonargparse import ArgumentParser

from flowsmith.objectives.errors import ObjectiveError
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.presets import PRESETS, Changes, Preset, objective

# What differs from GRPO without a reference: group-normalised, a ratio a token, clipped at 0.8 and 1.2, mean
# over each sample's tokens.
PUBLISHED: dict[Preset, dict[str, Any]] = {
    "grpo": {"beta": 0.04},
    "dr_grpo": {"advantage": "unscaled", "aggregation": "constant"},
    "dapo": {"epsilon_high": 0.28, "aggregation": "token_mean", "mask_truncated": True},
    "bnpo": {"aggregation": "batch_token_mean"},
    "gspo": {"ratio": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
    "cispo": {"surrogate": "cispo", "epsilon_low": 1.0, "epsilon_high": 4.0, "aggregation": "token_mean"},
    "sapo": {"surrogate": "sapo"},
    "rloo": {
        "advantage": "leave_one_out",
        "aggregation": "constant",
        "kl": "k1",
        "kl_in": "reward",
        "beta": 0.05,
    },
}
GRPO_WITHOUT_REFERENCE = {
    "advantage": "group",
    "advantage_epsilon": 1e-4,
    "ratio": "token",
    "surrogate": "clip",
    "epsilon_low": 0.2,
    "epsilon_high": 0.2,
    "dual_clip": 3.0,
    "temperature_positive": 1.0,
    "temperature_negative": 1.05,
    "aggregation": "sample_mean",
    "kl": "k3",
    "kl_in": "loss",
    "kl_correction": False,
    "beta": 0.0,
    "kl_target": None,
    "kl_horizon": 10_000,
    "entropy_bonus": 0.0,
    "entropy_target": None,
    "entropy_horizon": 10_000,
    "top_entropy": 1.0,
    "mask_truncated": False,
}


@pytest.mark.parametrize("preset", get_args(Preset))
def test_settings_are_the_published_ones(preset: Preset) -> None:
    assert asdict(objective(preset)) == GRPO_WITHOUT_REFERENCE | PUBLISHED[preset]
    assert objective(preset) == PRESETS[preset]


def test_changes_replace_what_is_published() -> None:
    assert objective("dapo", {"beta": 0.1, "epsilon_high": 0.3}) == Objective(
        epsilon_high=0.3, aggregation="token_mean", mask_truncated=True, beta=0.1
    )
    assert objective() == objective("grpo", {}) == PRESETS["grpo"]


def test_changes_are_the_settings_with_their_types() -> None:
    assert get_type_hints(Changes) == get_type_hints(Objective)
    assert Changes.__required_keys__ == frozenset()


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("ppo", None, "preset=ppo.*dr_grpo"),
        ("grpo", {"bta": 0.1}, "bta is no setting.*advantage_epsilon"),
        ("gspo", {"aggregation": "token_mean"}, "sample_mean"),
    ],
)
def test_unknown_names_and_changes_that_cannot_work_are_refused(
    preset: Any, changes: Any, message: str
) -> None:
    with pytest.raises(ObjectiveError, match=message):
        objective(preset, changes)


def parser() -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False)
    made.add_function_arguments(objective)
    return made


def test_a_configuration_names_preset_and_changes() -> None:
    parsed = parser().parse_string(
        "preset: dapo\nchanges: {beta: 0.1, kl_target: null, surrogate: dual_clip}"
    )
    made = objective(parsed.preset, parsed.changes)
    assert made == replace(PRESETS["dapo"], beta=0.1, surrogate="dual_clip")
    assert objective(**parser().parse_args(["--preset=sapo", '--changes={"beta": 1}'])).beta == 1


@pytest.mark.parametrize("changes", ["{beta: much}", "{bta: 0.1}", "{surrogate: ppo}", "{mask_truncated: 3}"])
def test_a_configuration_of_wrong_type_or_name_is_refused(changes: str) -> None:
    with pytest.raises(Exception, match="changes"):
        parser().parse_string(f"preset: grpo\nchanges: {changes}")


def test_every_field_is_documented() -> None:
    assert Objective.__doc__ is not None
    for field in fields(Objective):
        assert f"        {field.name}: " in Objective.__doc__
