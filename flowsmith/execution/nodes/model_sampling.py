"""Nodes that tell how a MODEL was trained: its noise levels, and what its output means."""

import math

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.registry import Outputs, node
from flowsmith.execution.prediction import Prediction
from flowsmith.execution.sigmas import FlowTable, NoiseTable

_PREDICTIONS: dict[str, Prediction] = {
    "eps": "epsilon",
    "v_prediction": "v_prediction",
    "x0": "sample",
    "lcm": "lcm",
}
_LCM_STRIDE = 20  # consistency distillation of Stable Diffusion knows 50 of 1000 timesteps
_FLUX_STEPS = 10000
_FLUX_PATCH = 16  # pixels a side that Flux sees as one
_FEW_PATCHES, _MANY_PATCHES = 256, 4096  # where base_shift and max_shift hold


@node("ModelSamplingDiscrete")
class ModelSamplingDiscrete:
    """A model read as one that predicts something else, or that was trained to start from pure noise."""

    model: DiffusionModel
    sampling: str
    zsnr: bool = False

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the model.

        Raises:
            ExecutionError: Nothing known is predicted, or the model is no variance-preserving one.
        """
        table = self.model.table
        if self.sampling not in _PREDICTIONS or not isinstance(table, NoiseTable):
            raise ExecutionError(
                f"ModelSamplingDiscrete: sampling={self.sampling!r} cannot be run with this model; use one of "
                f"{', '.join(_PREDICTIONS)} and a Stable Diffusion 1, 2 or XL"
            )
        if self.zsnr:
            table = table.without_signal_at_the_end()
        if self.sampling == "lcm" and table.stride == 1:
            table = table.every(_LCM_STRIDE)
        said = f"{self.sampling}, zsnr={self.zsnr}"
        return (self.model.sampled_as(said, table, _PREDICTIONS[self.sampling]),)


@node("ModelSamplingSD3", "ModelSamplingAuraFlow")
class ModelSamplingSD3:
    """A rectified flow with another shift of its times."""

    model: DiffusionModel
    shift: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the model."""
        return (_shifted(self.model, self.shift, 1000),)


@node("ModelSamplingFlux")
class ModelSamplingFlux:
    """A rectified flow whose times are shifted more for larger pictures, as Flux.1's authors do."""

    model: DiffusionModel
    max_shift: float
    base_shift: float
    width: int
    height: int

    def run(self, library: ModelLibrary) -> Outputs:
        """Patch the model."""
        slope = (self.max_shift - self.base_shift) / (_MANY_PATCHES - _FEW_PATCHES)
        patches = self.width * self.height / _FLUX_PATCH**2
        return (
            _shifted(self.model, math.exp(self.base_shift + slope * (patches - _FEW_PATCHES)), _FLUX_STEPS),
        )


def _shifted(model: DiffusionModel, shift: float, steps: int) -> DiffusionModel:
    if model.prediction != "flow":
        raise ExecutionError(
            f"a shift of {shift} cannot be given to a model that predicts {model.prediction}; use it with a rectified "
            "flow such as Stable Diffusion 3 or Flux.1"
        )
    return model.sampled_as(f"shift={shift!r}", FlowTable.from_shift(shift, steps), "flow")
