"""Where nodes stand in the editor: in columns by their distance from the loaders, none over another."""

from dataclasses import dataclass

from flowsmith.flows.flow import Flow, Link, Node
from flowsmith.flows.schema import Schema

_TITLE, _ROW, _TEXT = 30, 26, 110  # pixels of height: a title, a slot or setting, a text
_WIDTH, _MARGIN = 320, 12
_BESIDE, _BELOW = 90, 40  # pixels between columns, and between nodes of one


@dataclass(frozen=True)
class Box:
    """A node with its title, in the editor's pixels; x goes right, y down."""

    x: int
    y: int
    width: int
    height: int

    @property
    def body(self) -> tuple[list[int], list[int]]:
        """Position and size as the editor has them: below the title."""
        return [self.x, self.y + _TITLE], [self.width, self.height - _TITLE]


def lay_out(flow: Flow, schema: Schema) -> tuple[Box, ...]:
    """Return a box per node of a flow.

    Links lead from left to right, and nodes of one column stand in the order of what they take.

    Raises:
        FlowError: A class is not in the schema.
    """
    columns: list[list[int]] = []
    depths: list[int] = []
    for place, node in enumerate(flow.nodes):  # what a node links to stands before it
        depths.append(max((depths[link.node] + 1 for _, link in node.links()), default=0))
        columns += [[] for _ in range(depths[place] + 1 - len(columns))]
        columns[depths[place]].append(place)
    boxes: dict[int, Box] = {}
    for number, column in enumerate(columns):
        y = 0
        for place in sorted(column, key=lambda place: (_height_of_sources(flow.nodes[place], boxes), place)):
            height = _height(flow.nodes[place], schema)
            boxes[place] = Box(number * (_WIDTH + _BESIDE), y, _WIDTH, height)
            y += height + _BELOW
    return tuple(boxes[place] for place in range(len(flow.nodes)))


def _height_of_sources(node: Node, boxes: dict[int, Box]) -> float:
    """Return the mean y of what a node takes; few links cross if a column is sorted by it."""
    middles = [boxes[link.node].y + boxes[link.node].height / 2 for _, link in node.links()]
    return sum(middles) / len(middles) if middles else 0.0


def _height(node: Node, schema: Schema) -> int:
    node_type = schema.node(node.class_type)
    links = sum(isinstance(value, Link) for _, value in node.inputs)
    specs = [spec for spec in node_type.inputs_for(dict(node.inputs)) if spec.kind != "link"]
    texts = sum(spec.kind == "text" for spec in specs)
    settings = len(specs) - texts + sum(spec.seed for spec in specs)  # a seed has a second one: what follows
    rows = max(links, len(node_type.outputs)) + settings
    return _TITLE + _ROW * rows + _TEXT * texts + _MARGIN
