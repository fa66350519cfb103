"""What can go wrong between a flow and a ComfyUI server."""

from flowsmith.execution.errors import ExecutionError


class ServerSetupError(ExecutionError):
    """The servers cannot be used as they are set up; nothing is rendered until that is mended."""


class ServerFault(ExecutionError):
    """A server did not do what it was asked to; another server, or another try, may do it."""


class RenderFailure(ExecutionError):
    """A server refuses a flow or fails on it, and would do so again."""
