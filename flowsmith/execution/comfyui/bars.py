"""How far every server is with what it renders."""

from collections.abc import Sequence

from tqdm import tqdm


class Bars:
    """A line for each server, below the bar that counts images.

    Args:
        names: The servers' names.
        hidden: Show nothing.
    """

    def __init__(self, names: Sequence[str], hidden: bool) -> None:
        self._bars = {
            name: tqdm(
                total=1.0, desc=name, position=place, leave=False, disable=hidden, mininterval=0.5,
                bar_format="{desc}: {percentage:3.0f}%|{bar}|",
            )
            for place, name in enumerate(names, 1)
        }  # fmt: skip

    def show(self, server: str, fraction: float) -> None:
        """Move a server's bar to the share of its prompt that is done, 0 to 1."""
        bar = self._bars[server]
        bar.update(fraction - bar.n)

    def close(self) -> None:
        """Take the bars away."""
        for bar in self._bars.values():
            bar.close()
