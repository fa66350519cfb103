"""GRPO here and in TRL on the same work, measured side by side."""
