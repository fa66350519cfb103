"""The policy: a causal language model that writes flows, sampled and scored under the grammar."""

from flowsmith.policy.errors import PolicyError
from flowsmith.policy.logprobs import FlowBatch, FlowScores, flow_logprobs, score_flows
from flowsmith.policy.model import Policy, load_pair
from flowsmith.policy.noise import derived_seed
from flowsmith.policy.sampling import Rollout, generate
from flowsmith.policy.vocabulary import FlowTokenizer

__all__ = [
    "FlowBatch",
    "FlowScores",
    "FlowTokenizer",
    "Policy",
    "PolicyError",
    "Rollout",
    "derived_seed",
    "flow_logprobs",
    "generate",
    "load_pair",
    "score_flows",
]
