"""Stage 3, GRPO, one idea a file: sampling a cycle, preparing its updates, taking them, and what is logged."""

from lightning_modules.grpo.module import GRPOModule

__all__ = ["GRPOModule"]
