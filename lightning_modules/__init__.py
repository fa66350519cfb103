"""The stages: wiring, optimisation, logging; YAML names them by class."""

from lightning_modules.design import DesignModule
from lightning_modules.grpo import GRPOModule
from lightning_modules.reward_ensemble import RewardEnsembleModule
from lightning_modules.vocabulary import VocabularyModule

__all__ = ["DesignModule", "GRPOModule", "RewardEnsembleModule", "VocabularyModule"]
