"""Log-probabilities of given tokens, with gradients, fast and in little memory, through any causal LM."""

from flowsmith.policy.scoring.scores import CompletionBatch, Scores, score, score_text

__all__ = ["CompletionBatch", "Scores", "score", "score_text"]
