"""The policy: a causal language model that writes flows, sampled and scored under the grammar."""

from flowsmith.policy.errors import PolicyError
from flowsmith.policy.generator import Generator, LocalGenerator
from flowsmith.policy.guidance import LinearSchedule
from flowsmith.policy.interpolation import interpolated
from flowsmith.policy.logprobs import FlowBatch, FlowScores, flow_logprobs, score_flows
from flowsmith.policy.model import Policy, load_pair
from flowsmith.policy.noise import derived_seed
from flowsmith.policy.rollout import Rollout
from flowsmith.policy.sampling import generate
from flowsmith.policy.vocabulary import FlowTokenizer

__all__ = [
    "FlowBatch",
    "FlowScores",
    "FlowTokenizer",
    "Generator",
    "LinearSchedule",
    "LocalGenerator",
    "Policy",
    "PolicyError",
    "Rollout",
    "derived_seed",
    "flow_logprobs",
    "generate",
    "interpolated",
    "load_pair",
    "score_flows",
]
