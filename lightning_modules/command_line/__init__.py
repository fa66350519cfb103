"""The command line of every stage; `train.py` and `evaluate.py` are its two doors."""

from lightning_modules.command_line.main import main

__all__ = ["main"]
