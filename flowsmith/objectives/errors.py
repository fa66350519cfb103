"""The error of this room."""

from flowsmith.errors import FlowsmithError


class ObjectiveError(FlowsmithError):
    """Parts of an objective were combined in a way that cannot work, or given data that they cannot use."""
