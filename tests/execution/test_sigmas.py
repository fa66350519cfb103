import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.execution import ExecutionError
from flowsmith.execution.samplers import SAMPLERS
from flowsmith.execution.schedules import SCHEDULERS, beta, normal, sampling_sigmas
from flowsmith.execution.sigmas import NoiseTable

TABLE = NoiseTable.from_betas()

# Recorded from ComfyUI 0.33.0.
GOLDEN = {
    ("normal", 4, 1.0): [14.614640, 2.918307, 0.932358, 0.029167, 0.0],
    ("karras", 4, 1.0): [14.614643, 3.168605, 0.446919, 0.029167, 0.0],
    ("simple", 4, 1.0): [14.614641, 4.081729, 1.612886, 0.693205, 0.0],
    ("exponential", 4, 1.0): [14.614640, 1.840024, 0.231664, 0.029167, 0.0],
    ("sgm_uniform", 4, 1.0): [14.614640, 4.086081, 1.615580, 0.695150, 0.0],
    ("beta", 4, 1.0): [14.614641, 5.686592, 1.618279, 0.515391, 0.0],
    ("ddim_uniform", 4, 1.0): [4.116696, 1.623692, 0.698398, 0.041314, 0.0],
    ("linear_quadratic", 4, 1.0): [14.614633, 14.431950, 14.249267, 10.595609, 0.0],
    ("kl_optimal", 4, 1.0): [14.614633, 1.597066, 0.572914, 0.029167, 0.0],
    ("normal", 1, 1.0): [14.614640, 0.0],
    ("simple", 1, 1.0): [14.614641, 0.0],
    ("normal", 8, 0.6): [2.148592, 1.615580, 1.228068, 0.932358, 0.695150, 0.493552, 0.305776, 0.029167, 0.0],
}


@pytest.mark.parametrize(("scheduler", "steps", "denoise"), GOLDEN)
def test_golden_sigmas(scheduler: str, steps: int, denoise: float) -> None:
    got = sampling_sigmas(TABLE, scheduler, steps, denoise)
    assert got == pytest.approx(GOLDEN[scheduler, steps, denoise], rel=1e-6, abs=1e-6)


def test_all_recorded_sigmas(parity: Path) -> None:
    recorded = json.loads((parity / "sigmas.json").read_text())
    assert [TABLE.minimum, TABLE.maximum] == pytest.approx(recorded.pop("table_sigma_min_max"), rel=1e-6)
    compared = 0
    for name, sigmas in recorded.pop("per_sampler_set_steps").items():
        sampler, scheduler, steps, denoise = name.split("/")
        discard = SAMPLERS[sampler].discards_penultimate
        got = sampling_sigmas(
            TABLE, scheduler, int(steps), float(denoise.removeprefix("denoise=")), discard_penultimate=discard
        )
        assert got == pytest.approx(sigmas, rel=1e-5, abs=1e-6), name
        compared += 1
    for name, sigmas in recorded.items():
        scheduler, steps = name.split("/")
        if name == "kl_optimal/1":  # ComfyUI divides by zero; here it is the greatest sigma
            sigmas[0] = TABLE.maximum
        assert sampling_sigmas(TABLE, scheduler, int(steps)) == pytest.approx(sigmas, rel=1e-5, abs=1e-6), (
            name
        )
        compared += 1
    assert compared == 15 + 45


@given(
    st.sampled_from(sorted(SCHEDULERS)),
    st.integers(1, 60),
    st.floats(0.05, 1.0),
)
def test_schedules_descend_to_zero_in_the_asked_number_of_steps(
    scheduler: str, steps: int, denoise: float
) -> None:
    sigmas = sampling_sigmas(TABLE, scheduler, steps, denoise)
    # "beta" crowds at the ends of the table, and takes every entry once; "ddim_uniform" has whole strides.
    assert len(sigmas) == steps + 1 or (
        (scheduler == "beta" and steps / denoise > 138 and len(sigmas) <= steps)
        or (scheduler == "ddim_uniform" and len(sigmas) in (steps + 1, 1 + math.ceil(999 / (1000 // steps))))
    )
    assert sigmas[-1] == 0
    repeated = scheduler == "simple" and steps / denoise > 1000  # the table has no more entries
    assert all(high > low or (repeated and high == low) for high, low in pairwise(sigmas))
    assert sigmas[0] <= TABLE.maximum * (1 + 1e-5)


@given(st.integers(0, 999), st.floats(-0.49, 0.49))
def test_timestep_is_the_nearest_in_log_sigma(timestep: int, part: float) -> None:
    assert TABLE.timestep(TABLE.sigma(timestep)) == timestep
    between = min(max(timestep + part, 0.0), 999.0)
    assert TABLE.timestep(TABLE.sigma(between)) == timestep  # interpolation is linear in log sigma


def test_timestep_beyond_the_table_is_its_end() -> None:
    assert TABLE.timestep(1e-4) == 0
    assert TABLE.timestep(1e4) == 999


def test_first_entry_by_hand() -> None:
    # One step: a = 1 - beta_0, sigma^2 = beta_0 / (1 - beta_0).
    assert TABLE.minimum**2 == pytest.approx(0.00085 / (1 - 0.00085), rel=1e-6)
    assert torch.equal(TABLE.log_sigmas, TABLE.log_sigmas.sort().values)


@pytest.mark.parametrize(("scheduler", "steps"), [("normal", 0), ("optimal", 4)])
def test_refusals_name_what_was_set(scheduler: str, steps: int) -> None:
    with pytest.raises(ExecutionError, match=r"steps=0|'optimal'"):
        sampling_sigmas(TABLE, scheduler, steps)


def test_exponential_is_a_geometric_series() -> None:
    ratios = [low / high for high, low in pairwise(sampling_sigmas(TABLE, "exponential", 7)[:-1])]
    assert ratios == pytest.approx([(TABLE.minimum / TABLE.maximum) ** (1 / 6)] * 6)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_sgm_uniform_is_normal_without_its_penultimate_sigma(steps: int) -> None:
    assert sampling_sigmas(TABLE, "sgm_uniform", steps) == sampling_sigmas(
        TABLE, "normal", steps, discard_penultimate=True
    )


def test_beta_is_symmetric_in_timesteps_and_uses_entries_once() -> None:
    timesteps = [TABLE.timestep(sigma) for sigma in beta(TABLE, 19)[:-1]]
    assert timesteps[0] == 999
    assert [999 - t for t in timesteps[:0:-1]] == timesteps[1:]  # quantiles k / 19 and 1 - k / 19
    # Beta(0.6, 0.6) has a density of about 0.414 u^-0.4 near 0, so the k-th of n timesteps from the end is
    # 999 (0.6 k / (0.414 n))^(1 / 0.6): for n = 200 and k = 1, 0.27 of an entry, which repeats the last one.
    assert len(beta(TABLE, 138)) == 139
    many = beta(TABLE, 200)
    assert len(many) < 201
    assert len(set(many)) == len(many)


@pytest.mark.parametrize(("denoise", "whole"), [(1.0, 5), (0.6, 7)])
def test_discarding_the_penultimate_sigma(denoise: float, whole: int) -> None:
    # 4 steps at denoise 0.6 are the end of int(4 / 0.6) = 6; both schedules are made one step longer.
    schedule = normal(TABLE, whole)
    expected = (*schedule[:-2], 0.0)[-5:]
    assert sampling_sigmas(TABLE, "normal", 4, denoise, discard_penultimate=True) == expected


def test_no_denoising_is_no_steps() -> None:
    assert sampling_sigmas(TABLE, "normal", 20, 0.0) == ()
