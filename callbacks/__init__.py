"""What runs beside training and design, one callback a file; YAML names them by class."""

from callbacks.completions import Completions
from callbacks.evaluation_report import EvaluationReport
from callbacks.flow_execution import FlowExecution
from callbacks.gallery import Gallery
from callbacks.guidance_curve import GuidanceCurve
from callbacks.guided_sampling import GuidedSampling
from callbacks.image_metrics import ImageMetrics
from callbacks.scored_flow_writer import ScoredFlowWriter

__all__ = [
    "Completions",
    "EvaluationReport",
    "FlowExecution",
    "Gallery",
    "GuidanceCurve",
    "GuidedSampling",
    "ImageMetrics",
    "ScoredFlowWriter",
]
