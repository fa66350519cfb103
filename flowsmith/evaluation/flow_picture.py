"""Flows as people see them in ComfyUI: boxes with their settings, from the loaders on the left to the image."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from flowsmith.flows.flow import Flow, Link, Node

_COLUMN, _WIDTH, _LINE, _GAP = 3.0, 2.5, 0.16, 0.25  # inches
_LONGEST = 30  # characters of a setting
# Links by the name of the input that they feed, as ComfyUI colours its types.
_COLORS = {
    "model": "#7a5cd0", "clip": "#c9a400", "vae": "#d04848", "positive": "#c87832", "negative": "#c87832",
    "latent_image": "#c850a8", "samples": "#c850a8", "image": "#3c78c8", "images": "#3c78c8",
}  # fmt: skip


def flow_figure(flows: Mapping[str, Flow]) -> Figure:
    """Return a figure with one flow a row, each under its title.

    Args:
        flows: Title -> flow; at least one.
    """
    columns = {title: _columns(flow) for title, flow in flows.items()}
    widest = max(len(c) for c in columns.values())
    heights = [max(_height_of(flows[t], column) for column in c) + 0.4 for t, c in columns.items()]
    figure = Figure(figsize=(widest * _COLUMN, sum(heights)), dpi=90, layout="constrained")
    grid = figure.subplots(len(flows), 1, squeeze=False, height_ratios=heights)
    for (axis,), (title, flow), height in zip(grid, flows.items(), heights, strict=True):
        axis.set_title(title, fontsize=9, loc="left", parse_math=False)
        axis.set_xlim(0, widest * _COLUMN)
        axis.set_ylim(-height, 0)
        axis.set_axis_off()
        _draw(axis, flow, columns[title])
    return figure


def depths(flow: Flow) -> list[int]:
    """Return each node's distance from the loaders: the longest way of links that leads to it."""
    found: list[int] = []
    for node in flow.nodes:  # canonical order: what a node links to stands before it
        found.append(max((found[link.node] + 1 for _, link in node.links()), default=0))
    return found


def settings_of(node: Node) -> list[str]:
    """Return a node's settings, one a line; long ones are cut."""
    lines = [f"{name}: {value}" for name, value in node.inputs if not isinstance(value, Link)]
    return [line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…" for line in lines]


def _columns(flow: Flow) -> list[list[int]]:
    place = depths(flow)
    return [[i for i, depth in enumerate(place) if depth == d] for d in range(max(place) + 1)]


def _box_height(node: Node) -> float:
    return _LINE * (2.0 + len(settings_of(node)))


def _height_of(flow: Flow, column: list[int]) -> float:
    return sum(_box_height(flow.nodes[i]) + _GAP for i in column)


def _draw(axis: Axes, flow: Flow, columns: list[list[int]]) -> None:
    corners: dict[int, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        y = -0.1
        for place in column:
            corners[place] = (number * _COLUMN + 0.1, y)
            y -= _box_height(flow.nodes[place]) + _GAP
    for place, node in enumerate(flow.nodes):
        x, y = corners[place]
        height = _box_height(node)
        axis.add_patch(Rectangle((x, y - height), _WIDTH, height, facecolor="#f4f4f6", edgecolor="#8a8a90"))
        axis.text(x + 0.08, y - 0.06, node.class_type, fontsize=7.5, weight="bold", va="top")
        axis.text(
            x + 0.08, y - 1.6 * _LINE, "\n".join(settings_of(node)), fontsize=6.5, va="top", parse_math=False
        )
        for offset, (name, link) in enumerate(node.links()):
            from_x, from_y = corners[link.node]
            start, end = (from_x + _WIDTH, from_y - 0.14 - 0.05 * link.slot), (x, y - 0.1 - 0.05 * offset)
            axis.annotate(
                "",
                end,
                start,
                zorder=0,
                arrowprops={"arrowstyle": "-", "color": _COLORS.get(name, "#666666"), "lw": 1.1,
                            "connectionstyle": "arc3,rad=0.06", "zorder": 0},
            )  # fmt: skip
