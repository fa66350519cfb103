"""The error of this room."""

from flowsmith.errors import FlowsmithError


class PolicyError(FlowsmithError):
    """A policy cannot be built, read or asked as it was set."""
