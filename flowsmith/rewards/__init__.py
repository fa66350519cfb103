"""The reward: an ensemble that predicts a flow's score for a prompt without rendering, and says how sure it is."""

from flowsmith.rewards.ensemble import RewardEnsemble
from flowsmith.rewards.export import ExportError
from flowsmith.rewards.pairs import PairTokenizer, RewardsError
from flowsmith.rewards.surrogate import SmallEncoder, Surrogate

__all__ = ["ExportError", "PairTokenizer", "RewardEnsemble", "RewardsError", "SmallEncoder", "Surrogate"]
