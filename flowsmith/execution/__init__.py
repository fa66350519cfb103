"""Rendering of flows with ComfyUI's semantics on diffusers' networks."""

from flowsmith.execution.errors import ExecutionError, ModelFileError, ModelNameError
from flowsmith.execution.executor import Executor, RenderResult, RenderTask
from flowsmith.execution.library import ModelLibrary

__all__ = [
    "ExecutionError",
    "Executor",
    "ModelFileError",
    "ModelLibrary",
    "ModelNameError",
    "RenderResult",
    "RenderTask",
]
