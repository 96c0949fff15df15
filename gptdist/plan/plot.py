"""A plan as a picture: memory of a rank and tokens a second over the number of devices, and what a step is made of."""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gptdist.durable import write_whole
from gptdist.errors import ConfigError
from gptdist.plan.constants import MEMORY_BAND, TIME_BAND
from gptdist.plan.projection import Projection
from gptdist.plan.rank_memory import COMPONENTS
from gptdist.plan.sizes import Sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GIB = 2**30

MEMORY_COLOURS = {
    "weights": "#3b78b4",
    "gradients": "#56a8d6",
    "optimizer": "#2a9d8f",
    "activations": "#e0913a",
    "logits": "#d9594c",
    "communication": "#9b6fb5",
    "framework": "#8c8c8c",
}
"""Of middle brightness: they are seen on white and on black."""

TIME_COLOURS = {
    "matmul": "#3b78b4",
    "attention": "#56a8d6",
    "output": "#2a9d8f",
    "elementwise": "#79a35a",
    "launch": "#8c8c8c",
    "tensor_parallel": "#d9594c",
    "context_parallel": "#e57c70",
    "expert_parallel": "#c24d7e",
    "pipeline_bubble": "#b08a3e",
    "pipeline_transfer": "#cfae5b",
    "data_parallel": "#e0913a",
    "optimizer": "#9b6fb5",
    "checkpoint": "#6b6bb0",
}
"""Work in blue and green, traffic and waits in red and yellow, the rest in violet and grey."""

SUFFIXES = (".png", ".svg")
PAPER, INK = "#fefefd", "#22262b"
"""Colours of nothing else in the picture, so that a page can replace them by its own."""

SHOWN_FRACTION = 0.02
"""Parts of a step from which on they are named in the bar; all are in the legend."""

PICTURE_STYLE = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "plan",
}
"""Of matplotlib, for every picture of this framework."""


def check_path(path: Path, option: str, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Return why no picture or page can be written to ``path``."""
    bad = []
    if path.suffix not in suffixes:
        bad.append(f"{option}: '{path}' ends with none of {', '.join(suffixes)}; name such a file")
    if not path.parent.is_dir():
        bad.append(f"{option}: folder '{path.parent}' does not exist; make it, or name another")
    return bad


def plot_plan(sizes: Sizes) -> "Figure":
    """Return the picture of a plan and of the same run on other numbers of devices."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(PICTURE_STYLE):  # type: ignore[arg-type]  # its stubs list names, ours are a plain dict
        figure = Figure(figsize=(11.0, 8.0), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2, height_ratios=[3.2, 1.0])
        _memory(figure.add_subplot(grid[0, 0]), sizes)
        _speed(figure.add_subplot(grid[0, 1]), sizes)
        _step(figure.add_subplot(grid[1, :]), sizes.asked)
        figure.suptitle(title(sizes), fontsize=11)
    return figure


def title(sizes: Sizes) -> str:
    """Return what is shown, and which numbers of nodes are not."""
    asked = sizes.asked
    told = f"{asked.config.name}: {asked.layout}, {asked.workload.precision}, {asked.cluster.device.name}"
    if not sizes.left_out:
        return told
    return f"{told}\nnot legal, so left out: {', '.join(map(str, sorted(sizes.left_out)))} nodes"


def draw(sizes: Sizes, kind: str) -> bytes:
    """Return the picture as a ``png`` or an ``svg`` file."""
    import matplotlib as mpl

    content = io.BytesIO()
    with mpl.rc_context(PICTURE_STYLE):  # type: ignore[arg-type]  # as above; text of an SVG is set when it is written
        metadata = {"Date": None} if kind == "svg" else {}  # the same plan is the same bytes
        plot_plan(sizes).savefig(content, format=kind, dpi=150, metadata=metadata)
    return content.getvalue()


def write_plot(path: Path, sizes: Sizes) -> None:
    """Write the picture to ``path``; its suffix says which format.

    Raises:
        ConfigError: the suffix is no known one, or the folder does not exist.
    """
    bad = check_path(path, "--plot")
    if bad:
        raise ConfigError(bad)
    write_whole(path, draw(sizes, path.suffix[1:]))


def inline_svg(sizes: Sizes) -> str:
    """Return the picture as an element of a page, in the page's own colours of text and ground."""
    text = draw(sizes, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace(PAPER, "var(--paper)").replace(INK, "var(--ink)")


def _counts(sizes: Sizes) -> list[str]:
    return [f"{one.layout.world_size:,}" for one in sizes.legal]


def _memory(axes: "Axes", sizes: Sizes) -> None:
    places, bottoms = range(len(sizes.legal)), [0.0] * len(sizes.legal)
    for name in COMPONENTS:
        values = [getattr(one.peak, name) / GIB for one in sizes.legal]
        axes.bar(places, values, 0.7, bottoms, color=MEMORY_COLOURS[name], label=name, edgecolor=PAPER, linewidth=0.6)
        bottoms = [bottom + value for bottom, value in zip(bottoms, values, strict=True)]
    errors = [total * MEMORY_BAND for total in bottoms]
    axes.errorbar(places, bottoms, errors, fmt="none", ecolor=INK, capsize=4, label=f"±{MEMORY_BAND:.0%}, 9 of 10 runs")
    capacity = sizes.asked.capacity / GIB
    axes.axhline(capacity, color="#c0392b", linestyle="--", label=f"memory of a device, {capacity:,.4g} GiB")
    axes.set_xticks(list(places), _counts(sizes))
    axes.set(xlabel=_device_label(sizes), ylabel="GiB a rank", title="Memory of the rank that needs most")
    axes.set_ylim(0, 1.45 * max(capacity, *(total + error for total, error in zip(bottoms, errors, strict=True))))
    axes.legend(ncols=2, fontsize=7.5, loc="upper left", frameon=False)


def _device_label(sizes: Sizes) -> str:
    return "devices" if sizes.asked.cluster.on_gpu else "ranks"


def _speed(axes: "Axes", sizes: Sizes) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    counts = [one.layout.world_size for one in sizes.legal]
    speeds = [one.tokens_per_second for one in sizes.legal]
    # Seconds are off by the band, so speeds are by its inverse.
    low, high = ([speed / (1 + sign * TIME_BAND) for speed in speeds] for sign in (1, -1))
    perfect = [speeds[0] * count / counts[0] for count in counts]
    axes.plot(counts, perfect, color="#8c8c8c", linestyle=":", label="perfect scaling")
    axes.fill_between(counts, low, high, color="#3b78b4", alpha=0.25, linewidth=0, label=f"step time ±{TIME_BAND:.0%}")
    axes.plot(counts, speeds, color="#3b78b4", marker="o", label="planned")
    asked = sizes.asked
    axes.plot(
        [asked.layout.world_size], [asked.tokens_per_second],
        color="#c0392b", marker="D", linestyle="none", label=f"asked: {asked.tokens_per_second:,.0f} tokens/s",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(counts, _counts(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=_device_label(sizes), ylabel="tokens/s of all ranks", title="Speed, the batch as it is")
    axes.legend(fontsize=7.5, loc="upper left", frameon=False)


def _step(axes: "Axes", asked: Projection) -> None:
    total, left = asked.time.total, 0.0
    for name, seconds in asked.time.tree().items():
        if not seconds:
            continue
        label = f"{name.replace('_', ' ')} {seconds:.3g} s ({seconds / total:.1%})"
        axes.barh(0, seconds, 0.5, left, color=TIME_COLOURS[name], label=label, edgecolor=PAPER, linewidth=0.6)
        if seconds > SHOWN_FRACTION * total:
            place = left + seconds / 2
            axes.text(place, 0, f"{seconds / total:.0%}", ha="center", va="center", color="white", fontsize=8)
        left += seconds
    axes.set(
        xlim=(0, total), ylim=(-0.3, 0.3), yticks=[], xlabel="seconds",
        title=f"A step on {asked.layout.world_size:,} ranks: {total:.3g} s ±{TIME_BAND:.0%}, mfu {asked.mfu:.1%}",
    )  # fmt: skip
    axes.spines["left"].set_visible(False)
    axes.legend(ncols=4, fontsize=7.5, loc="upper left", bbox_to_anchor=(0.0, -0.45), borderaxespad=0.0, frameon=False)
