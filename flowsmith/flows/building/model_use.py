"""Which family of models each node of a flow works with."""

from flowsmith.flows.building.installed import MODEL_INPUTS, Models
from flowsmith.flows.flow import Flow, Link
from flowsmith.flows.schema import Schema

_CARRIERS = {"MODEL", "GUIDER"}


def families(flow: Flow, schema: Schema, models: Models) -> list[frozenset[str]]:
    """Return the families whose models reach each node through its links of type MODEL (or GUIDER).

    A node without such a link (a choice of sampler, say) works with all models of the flow. An unknown family is
    left out.
    """
    own: list[frozenset[str] | None] = []
    for node in flow.nodes:
        found: set[str] | None = None
        for name, value in node.inputs:
            if isinstance(value, Link):
                outputs = schema.node(flow.nodes[value.node].class_type).outputs
                if outputs[value.slot] in _CARRIERS:
                    found = (found or set()) | (own[value.node] or frozenset())
            elif MODEL_INPUTS.get(name, "loras") != "loras":
                family = models.family(MODEL_INPUTS[name], str(value))
                found = (found or set()) | ({family} if family else set())
        own.append(None if found is None else frozenset(found))
    every = frozenset(family for one in own for family in one or ())
    return [every if one is None else one for one in own]


def model_families(flow: Flow, models: Models) -> set[str | None]:
    """Return the families of all models and LoRAs that a flow names; None stands for an unknown one."""
    named = ((MODEL_INPUTS.get(name), value) for node in flow.nodes for name, value in node.inputs)
    return {models.family(folder, value) for folder, value in named if folder and isinstance(value, str)}
