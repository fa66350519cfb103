"""Judges: what scores an image for a prompt, as torchmetrics over pure per-sample functions."""

from flowsmith.metrics.aesthetic import AestheticHead, AestheticScore
from flowsmith.metrics.clip_score import ClipScore, clip_score
from flowsmith.metrics.geneval import TASKS, GenEval, geneval_accuracies
from flowsmith.metrics.open_clip_loader import ClipEncoder
from flowsmith.metrics.preference import PreferenceScore
from flowsmith.metrics.protocol import Judge, JudgeError

__all__ = [
    "TASKS",
    "AestheticHead",
    "AestheticScore",
    "ClipEncoder",
    "ClipScore",
    "GenEval",
    "Judge",
    "JudgeError",
    "PreferenceScore",
    "clip_score",
    "geneval_accuracies",
]
