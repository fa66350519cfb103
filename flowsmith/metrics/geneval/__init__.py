"""GenEval (Ghosh et al., 2023): does the image hold what the prompt asked for, by task and overall."""

from flowsmith.metrics.geneval.metric import OVERALL, TASKS, Checker, GenEval, geneval_accuracies

__all__ = ["OVERALL", "TASKS", "Checker", "GenEval", "geneval_accuracies"]
