"""Noise levels that nodes give to models, and what outputs mean under them."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from flowsmith.execution import ExecutionError, ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.prediction import reading
from flowsmith.execution.schedules import SCHEDULERS, sampling_sigmas
from flowsmith.execution.sigmas import FlowTable, NoiseTable
from tests.execution.running import run

TABLE = NoiseTable.from_betas()


@pytest.fixture(scope="module")
def model(models: Path) -> DiffusionModel:
    return ModelLibrary(models).checkpoint("tiny_a").model


def flow_model(model: DiffusionModel) -> DiffusionModel:
    return replace(model, table=FlowTable.from_shift(3.0), prediction="flow")


def discrete(model: DiffusionModel, sampling: str, zsnr: bool = False) -> DiffusionModel:
    patched: DiffusionModel = run(
        ModelLibrary("."), "ModelSamplingDiscrete", model=model, sampling=sampling, zsnr=zsnr
    )
    return patched


def test_no_signal_is_left_at_the_end() -> None:
    """Algorithm 1 of arXiv 2305.08891 on the roots of the signal's share; the first one stays as it is."""
    end = TABLE.without_signal_at_the_end()
    roots, rescaled = ((1 / (t.sigmas.double() ** 2 + 1)).sqrt() for t in (TABLE, end))
    expected = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    torch.testing.assert_close(rescaled[:-1], expected[:-1], rtol=1e-5, atol=1e-6)
    assert end.minimum == pytest.approx(TABLE.minimum, rel=1e-5)
    assert end.maximum == pytest.approx(4518.76, rel=1e-4)
    assert end.timestep(end.maximum) == 999


def test_a_distilled_table_has_every_twentieth_timestep(model: DiffusionModel) -> None:
    table = discrete(model, "lcm").table
    assert isinstance(table, NoiseTable)
    assert len(table.sigmas) == 50
    assert table.sigmas.tolist() == TABLE.sigmas[19::20].tolist()
    assert [table.timestep(float(TABLE.sigmas[t])) for t in (19, 22, 999)] == [19, 19, 999]
    assert table.sigma(39) == pytest.approx(float(TABLE.sigmas[39]))
    assert table.sigma(29) == pytest.approx(math.sqrt(float(TABLE.sigmas[19]) * float(TABLE.sigmas[39])))
    assert table.after(0.5) == pytest.approx(table.sigma(499.5))
    again = discrete(discrete(model, "lcm"), "lcm").table
    assert len(again.sigmas) == 50


def test_a_consistency_models_reading_is_its_boundary_condition() -> None:
    """Luo et al.: c_skip = 0.25 / ((10 t)^2 + 0.25), c_out = 10 t / sqrt((10 t)^2 + 0.25)."""
    x, output = torch.tensor([2.0]), torch.tensor([0.3])
    for t in (0, 3):
        sigma = float(TABLE.sigmas[t])
        skip = 0.25 / ((10 * t) ** 2 + 0.25)
        out = 10 * t / math.sqrt((10 * t) ** 2 + 0.25)
        expected = out * (2.0 - sigma * 0.3) + skip * 2.0
        assert float(reading("lcm", TABLE, sigma).guess(x, output)) == pytest.approx(expected, rel=1e-6)
    assert float(reading("sample", TABLE, 3.0).guess(x, output)) == pytest.approx(0.3)


def test_patches_of_sampling_have_keys_of_their_own(model: DiffusionModel) -> None:
    kinds = [("eps", False), ("eps", True), ("v_prediction", False), ("x0", False), ("lcm", False)]
    patched = [discrete(model, *kind) for kind in kinds]
    assert len({one.key for one in [model, *patched]}) == 6
    assert [one.prediction for one in patched] == ["epsilon", "epsilon", "v_prediction", "sample", "lcm"]
    assert {one.network for one in patched} == {model.network}
    for sampling, of in (("img_to_img", model), ("eps", flow_model(model))):
        with pytest.raises(ExecutionError, match=f"sampling='{sampling}' cannot be run with this model"):
            discrete(of, sampling)


def test_shifts_of_a_flow_by_hand(model: DiffusionModel) -> None:
    library = ModelLibrary(".")
    for name in ("ModelSamplingSD3", "ModelSamplingAuraFlow"):
        shifted = run(library, name, model=flow_model(model), shift=2.0)
        assert shifted.table.sigma(500.0) == pytest.approx(2 * 0.5 / 1.5)
        assert float(shifted.table.sigmas[499]) == pytest.approx(2 * 0.5 / 1.5)
    # 1024 x 1024 are 4096 patches, where the shift is max_shift; 256 x 256 are 256, where it is base_shift.
    for side, mu in ((1024, 1.15), (256, 0.5), (768, 0.5 + 0.65 * (2304 - 256) / 3840)):
        how = {"max_shift": 1.15, "base_shift": 0.5, "width": side, "height": side}
        table = run(library, "ModelSamplingFlux", model=flow_model(model), **how).table
        assert table.sigma(250.0) == pytest.approx(math.exp(mu) / (math.exp(mu) + 1 / 0.25 - 1))
        assert len(table.sigmas) == 10000
    with pytest.raises(ExecutionError, match="rectified flow"):
        run(library, "ModelSamplingSD3", model=model, shift=2.0)


def test_a_flow_is_mixed_and_read_as_it_was_trained() -> None:
    table = FlowTable.from_shift(3.0)
    clean, noise = torch.tensor([2.0]), torch.tensor([-1.0])
    for sigma in (0.2, 0.7, 1.0):
        x = table.noised(clean, noise, sigma)
        assert float(x) == pytest.approx((1 - sigma) * 2 - sigma)
        assert float(reading("flow", table, sigma).guess(x, noise - clean)) == pytest.approx(2.0)
        assert table.scaled(x, sigma) is x
        assert table.timestep(sigma) == pytest.approx(1000 * sigma)
    # What one node hands on, noised without noise, is what the next one goes on from.
    x = torch.tensor([0.6])
    assert float(table.noised(table.handed_on(x, 0.4), torch.zeros(1), 0.4)) == pytest.approx(0.6)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("shift", [1.0, 3.0, math.exp(1.15)])
def test_schedules_of_a_flow_descend_from_one(scheduler: str, shift: float) -> None:
    table = FlowTable.from_shift(shift, 10000)
    sigmas = sampling_sigmas(table, scheduler, 8)
    assert sigmas[-1] == 0
    assert all(high > low for high, low in pairwise(sigmas))
    if scheduler != "ddim_uniform":
        assert sigmas[0] == pytest.approx(1.0, abs=1e-6)
        assert len(sigmas) == 9


def test_schedules_of_a_flow_by_hand() -> None:
    table = FlowTable.from_shift(3.0)
    quarter = [3 * t / (1 + 2 * t) for t in (1.0, 0.75, 0.5, 0.25)]
    assert sampling_sigmas(table, "simple", 4) == pytest.approx([*quarter, 0.0], rel=1e-5)
    assert sampling_sigmas(table, "sgm_uniform", 4)[0] == 1.0
    # "normal" shifts twice: times are sigmas of the table, from its last to its first.
    last = 3 * 0.001 / 1.002
    times = [1.0, (1 + last) / 2, last]
    assert sampling_sigmas(table, "normal", 3) == pytest.approx(
        [3 * t / (1 + 2 * t) for t in times] + [0.0], rel=1e-4
    )
