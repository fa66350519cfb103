"""Nodes that hand on values."""

from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Outputs, node


@node("PrimitiveInt")
class PrimitiveInt:
    """A whole number."""

    value: int

    def run(self, library: ModelLibrary) -> Outputs:
        """Hand it on."""
        return (self.value,)


@node("PrimitiveFloat")
class PrimitiveFloat:
    """A number."""

    value: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Hand it on."""
        return (self.value,)


@node("PrimitiveBoolean")
class PrimitiveBoolean:
    """True or false."""

    value: bool

    def run(self, library: ModelLibrary) -> Outputs:
        """Hand it on."""
        return (self.value,)


@node("PrimitiveString", "PrimitiveStringMultiline")
class PrimitiveString:
    """A text."""

    value: str

    def run(self, library: ModelLibrary) -> Outputs:
        """Hand it on."""
        return (self.value,)


@node("PreviewAny")
class PreviewAny:
    """Shows what it is given to whoever looks, and hands it on as text."""

    source: Any

    def run(self, library: ModelLibrary) -> Outputs:
        """Hand it on."""
        return (str(self.source),)


@node("StringConcatenate")
class StringConcatenate:
    """Two texts with something between."""

    string_a: str
    string_b: str
    delimiter: str = ""

    def run(self, library: ModelLibrary) -> Outputs:
        """Join them."""
        return (f"{self.string_a}{self.delimiter}{self.string_b}",)


@node("ComfySwitchNode")
class ComfySwitchNode:
    """One of two inputs of one kind. Both are evaluated here, whichever is taken."""

    switch: bool
    on_false: Any
    on_true: Any

    def run(self, library: ModelLibrary) -> Outputs:
        """Hand one on."""
        return (self.on_true if self.switch else self.on_false,)
