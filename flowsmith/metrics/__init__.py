"""Judges: what scores an image for a prompt, as torchmetrics over pure per-sample functions."""

from flowsmith.metrics.aesthetic import AestheticHead, AestheticScore
from flowsmith.metrics.clip_score import ClipScore, clip_score
from flowsmith.metrics.geneval import TASKS, GenEval, geneval_accuracies
from flowsmith.metrics.geneval.checker import GenEvalChecker
from flowsmith.metrics.geneval.prompt_file import read_geneval_prompts
from flowsmith.metrics.image_batch import ImageBatch
from flowsmith.metrics.image_reward import ImageReward
from flowsmith.metrics.open_clip_loader import ClipEncoder
from flowsmith.metrics.pick_score import PickScore
from flowsmith.metrics.preference import PreferenceScore
from flowsmith.metrics.protocol import Judge, JudgeError
from flowsmith.metrics.vqa_score import VqaScore

__all__ = [
    "TASKS",
    "AestheticHead",
    "AestheticScore",
    "ClipEncoder",
    "ClipScore",
    "GenEval",
    "GenEvalChecker",
    "ImageBatch",
    "ImageReward",
    "Judge",
    "JudgeError",
    "PickScore",
    "PreferenceScore",
    "VqaScore",
    "clip_score",
    "geneval_accuracies",
    "read_geneval_prompts",
]
