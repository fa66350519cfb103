"""Decoding: one engine for text and flows, through any Hugging Face causal LM.

The model is Hugging Face's; cache, attention and the way that tokens are laid out are ours.
"""

from flowsmith.policy.decoding.text import Completion, sample_text

__all__ = ["Completion", "sample_text"]
