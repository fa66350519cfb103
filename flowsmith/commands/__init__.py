"""The command ``flowsmith``: one file per command; each imports what it needs when it runs."""

from flowsmith.commands.command_line import main

__all__ = ["main"]
