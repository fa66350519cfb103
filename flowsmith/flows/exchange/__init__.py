"""Files of ComfyUI users, in and out: workflows and pictures to flows, flows to workflows and pictures."""

from flowsmith.flows.exchange.imported import Imported, MissingFile, MissingNode
from flowsmith.flows.exchange.layout import Box, lay_out
from flowsmith.flows.exchange.prompt_place import Placed, place_prompt
from flowsmith.flows.exchange.reading import import_file, import_graph
from flowsmith.flows.exchange.workflow import to_workflow
from flowsmith.flows.exchange.writing import save_api, save_picture, save_workflow

__all__ = [
    "Box",
    "Imported",
    "MissingFile",
    "MissingNode",
    "Placed",
    "import_file",
    "import_graph",
    "lay_out",
    "place_prompt",
    "save_api",
    "save_picture",
    "save_workflow",
    "to_workflow",
]
