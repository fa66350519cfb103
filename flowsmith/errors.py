"""The base of every error that Flowsmith raises on purpose."""


class FlowsmithError(Exception):
    """A mistake of the input, told as: what was set, why it cannot work, what to set instead."""
