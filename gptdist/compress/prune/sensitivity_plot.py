"""Sensitivity as a picture: loss over the share that is pruned, one line a layer, one field a part."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gptdist.compress.prune.sensitivity import Sensitivity
from gptdist.durable import write_whole
from gptdist.plan.plot import PICTURE_STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED_LAYERS = 12
"""Up to so many layers each has an entry in the legend; of more, a scale of colours."""

_TITLES = {
    "qkv": "queries, keys and values",
    "proj": "output of attention",
    "fc1": "first feed-forward matrix",
    "fc2": "second feed-forward matrix",
    "neurons": "feed-forward neurons",
    "heads": "attention heads",
}


def write_picture(path: Path, found: Sensitivity) -> None:
    """Write the picture as a PNG."""
    content = io.BytesIO()
    plot_sensitivity(found).savefig(content, format="png", dpi=150)
    write_whole(path, content.getvalue())


def plot_sensitivity(found: Sensitivity) -> "Figure":
    """Return a field for each part, all with the same scale of the loss, and one with its own for whole layers."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fields = len(found.parts) + 1
    columns = min(4, fields)
    rows = -(-fields // columns)
    with mpl.rc_context(PICTURE_STYLE):  # type: ignore[arg-type]  # its stubs list names, ours are a plain dict
        figure = Figure(figsize=(1.0 + 3.2 * columns, 0.9 + 2.9 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        losses = [found.loss, *(point.loss for point in found.points)]
        margin = 0.05 * (max(losses) - min(losses)) or 0.1
        for axes, part in zip(grid.flat, found.parts, strict=False):
            _part(axes, found, part)
            axes.set_ylim(min(losses) - margin, max(losses) + margin)
        _whole_layers(grid.flat[len(found.parts)], found)
        for axes in grid.flat[fields:]:
            axes.set_axis_off()
        for axes in (*grid[:, 0], grid.flat[fields - 1]):
            axes.set_ylabel("loss, nats a token")
        _name_layers(figure, grid[0, 0], found)
        figure.suptitle(
            f"{found.model}, step {found.step:,}: one part of one layer pruned; single weights by {found.method}\n"
            f"whole model: {found.loss:.4f} nats a token on {found.held_out_tokens:,} held-out tokens (dotted)"
        )
    return figure


def _colours(count: int) -> Callable[[int], tuple[float, ...]]:
    """Return the colour of a layer: from the first, dark, to the last; none is too bright for white paper."""
    from matplotlib import colormaps

    scale = colormaps["viridis"]
    return lambda layer: tuple(scale(0.88 * layer / max(1, count - 1)))


def _part(axes: "Axes", found: Sensitivity, part: str) -> None:
    colour = _colours(found.num_layers)
    for layer in range(found.num_layers):
        curve = found.curve(layer, part)
        if curve:
            ratios, losses = zip(*curve, strict=True)
            axes.plot(ratios, losses, color=colour(layer), marker="o", markersize=3, linewidth=1.2, label=str(layer))
    axes.axhline(found.loss, color="#8c8c8c", linestyle=":", linewidth=1.0)
    axes.set(title=_TITLES[part], xlabel="share pruned", xlim=(0.0, 1.0))


def _whole_layers(axes: "Axes", found: Sensitivity) -> None:
    from matplotlib.ticker import MaxNLocator

    colour = _colours(found.num_layers)
    for layer, loss in enumerate(found.without_layer):
        axes.plot([layer, layer], [found.loss, loss], color=colour(layer), linewidth=1.2)
        axes.plot([layer], [loss], color=colour(layer), marker="o", markersize=4, linestyle="none")
    axes.axhline(found.loss, color="#8c8c8c", linestyle=":", linewidth=1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="whole layer left out", xlabel="layer", xlim=(-0.5, found.num_layers - 0.5))


def _name_layers(figure: "Figure", axes: "Axes", found: Sensitivity) -> None:
    """Say which colour is which layer."""
    if found.num_layers <= NAMED_LAYERS:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, title="layer", loc="outside right upper", frameon=False, fontsize=8)
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colour = _colours(found.num_layers)
    scale = ListedColormap([colour(layer) for layer in range(found.num_layers)])
    mappable = ScalarMappable(Normalize(-0.5, found.num_layers - 0.5), scale)
    figure.colorbar(mappable, ax=figure.axes, label="layer", fraction=0.02, pad=0.01)
