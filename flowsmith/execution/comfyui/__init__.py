"""Rendering on ComfyUI servers over their own protocol."""

from flowsmith.execution.comfyui.errors import RenderFailure, ServerFault, ServerSetupError
from flowsmith.execution.comfyui.executor import ComfyUIExecutor

__all__ = ["ComfyUIExecutor", "RenderFailure", "ServerFault", "ServerSetupError"]
