"""What can go wrong between a flow and its image."""

from flowsmith.errors import FlowsmithError


class ExecutionError(FlowsmithError):
    """A flow cannot be rendered as it stands."""


class ModelNameError(ExecutionError):
    """A flow names a model file that the library does not have, or that would lie outside its folder."""


class ModelFileError(ExecutionError):
    """A model file is corrupt, incomplete, or of a kind that cannot be run."""
