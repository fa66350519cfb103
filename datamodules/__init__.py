"""What each stage reads, one datamodule a file; YAML names them by class."""

from datamodules.design_prompts import DesignPrompts
from datamodules.prompt_flow_pairs import PromptFlowPairs
from datamodules.prompts import Prompts
from datamodules.scored_flows import ScoredFlowsData

__all__ = ["DesignPrompts", "PromptFlowPairs", "Prompts", "ScoredFlowsData"]
