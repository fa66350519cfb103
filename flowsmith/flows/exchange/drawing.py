"""A picture of a flow as the editor shows it, for a file that carries the flow in its metadata."""

from PIL import Image, ImageDraw

from flowsmith.flows.exchange.layout import lay_out
from flowsmith.flows.flow import Flow, Link, Value
from flowsmith.flows.schema import Schema

_SCALE = 0.5  # pixels of the picture per pixel of the editor
_EDGE = 20
_LONGEST = 26  # characters of a setting
_LARGEST = 8_000  # pixels of a side; a flow of some 20 columns is 4,000 wide


def draw(flow: Flow, schema: Schema) -> Image.Image:
    """Draw the boxes, settings and links of a flow.

    Raises:
        FlowError: A class is not in the schema.
    """
    boxes = lay_out(flow, schema)
    right, bottom = max(box.x + box.width for box in boxes), max(box.y + box.height for box in boxes)
    scale = min(_SCALE, (_LARGEST - 2 * _EDGE) / max(right, bottom))

    def at(x: float, y: float) -> tuple[float, float]:
        return _EDGE + scale * x, _EDGE + scale * y

    size = (round(2 * _EDGE + scale * right), round(2 * _EDGE + scale * bottom))
    picture = Image.new("RGB", size, "#202024")
    pen = ImageDraw.Draw(picture)
    for place, node in enumerate(flow.nodes):
        for number, (_, link) in enumerate(node.links()):
            start, end = boxes[link.node], boxes[place]
            pen.line(
                [
                    at(start.x + start.width, start.y + 42 + 26 * link.slot),
                    at(end.x, end.y + 42 + 26 * number),
                ],
                fill="#8a7ad0",
                width=2,
            )
    for node, box in zip(flow.nodes, boxes, strict=True):
        pen.rectangle(
            [at(box.x, box.y), at(box.x + box.width, box.y + box.height)], fill="#f4f4f6", outline="#8a8a90"
        )
        lines = [_cut(node.class_type), *(f"  {_cut(f'{n}: {v}')}" for n, v in node.inputs if not _link(v))]
        pen.multiline_text(at(box.x + 8, box.y + 8), "\n".join(lines), fill="#202024", spacing=2)
    return picture


def _link(value: Value | Link) -> bool:
    return isinstance(value, Link)


def _cut(text: str) -> str:
    # The built-in font has Latin letters only where no FreeType is installed.
    text = text.encode("latin-1", "replace").decode("latin-1").replace("\n", " ")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
