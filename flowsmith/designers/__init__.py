"""Everything that proposes flows for a prompt."""

from flowsmith.designers.best_fixed import BestFixedDesigner
from flowsmith.designers.corpus import CorpusDesigner
from flowsmith.designers.every_flow import EveryFlowDesigner
from flowsmith.designers.fixed import FixedDesigner
from flowsmith.designers.guided import GuidedDesigner
from flowsmith.designers.protocol import Designer, DesignerError
from flowsmith.designers.stranger import StrangerDesigner
from flowsmith.designers.surrogate_argmax import SurrogateArgMaxDesigner

__all__ = [
    "BestFixedDesigner",
    "CorpusDesigner",
    "Designer",
    "DesignerError",
    "EveryFlowDesigner",
    "FixedDesigner",
    "GuidedDesigner",
    "StrangerDesigner",
    "SurrogateArgMaxDesigner",
]
