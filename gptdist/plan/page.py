"""A plan as one page: picture, every number with its unit and formula, config and command; nothing is loaded."""

import html
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gptdist.durable import write_whole
from gptdist.errors import ConfigError
from gptdist.plan.constants import MEMORY_BAND, TIME_BAND
from gptdist.plan.plot import GIB, check_path, inline_svg, title
from gptdist.plan.projection import Projection
from gptdist.plan.rank_memory import COMPONENTS
from gptdist.plan.sizes import Sizes

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #22262b; --line: #d4d8dd; --shade: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16191d; --ink: #e4e7ea; --line: #3a4047; --shade: #20252a; }
}
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
svg { width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.2rem 0.6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; min-width: 18rem; }
td.asked, th.asked { background: var(--shade); font-weight: 600; }
pre { background: var(--shade); padding: 0.8rem; overflow-x: auto; }
"""


@dataclass(frozen=True)
class Row:
    """A number of a plan."""

    name: str
    unit: str
    formula: str
    value: Callable[[Projection], float]


MEMORY_FORMULAS = {
    "weights": "of the rank's layers, and what ZeRO-3 has gathered",
    "gradients": "as the ZeRO stage keeps them",
    "optimizer": "master weights and moments / ranks that share them",
    "activations": "what forward keeps for backward, after recomputation",
    "logits": "of one chunk of the loss",
    "communication": "buffers of gradients, weights and the update",
    "framework": "constants: driver, libraries, communicators",
}

TIME_FORMULAS = {
    "matmul": "FLOPs of the layers' matrices / (peak x fraction x filled tiles)",
    "attention": "FLOPs below the diagonal / (peak x fraction)",
    "output": "output projection, and bytes of the loss / memory bandwidth",
    "elementwise": "bytes / memory bandwidth",
    "launch": "passes of layers x constant",
    "tensor_parallel": "bytes of the collectives / link bandwidth x fraction, less what is hidden",
    "context_parallel": "bytes of keys and values / link bandwidth x fraction",
    "expert_parallel": "bytes of tokens / link bandwidth x fraction",
    "pipeline_bubble": "(stages - 1) x time of one micro batch in a stage",
    "pipeline_transfer": "bytes between stages / bandwidth, what is not hidden",
    "data_parallel": "bytes of gradients and weights / bandwidth, what is not hidden",
    "optimizer": "parameters of the rank x bytes / memory bandwidth",
    "checkpoint": "time that a save stops the ranks / steps between saves",
}


def _rows() -> list[Row]:
    """Return all numbers, in order."""
    memory = [
        Row(f"memory: {name}", "GiB", MEMORY_FORMULAS[name], lambda one, name=name: getattr(one.peak, name) / GIB)  # type: ignore[misc]
        for name in COMPONENTS
    ]
    seconds = [
        Row(f"step: {name.replace('_', ' ')}", "s", formula, lambda one, name=name: getattr(one.time, name))  # type: ignore[misc]
        for name, formula in TIME_FORMULAS.items()
    ]
    return [
        Row("nodes", "", "asked", lambda one: one.cluster.num_nodes),
        *memory,
        Row("memory of a rank", "GiB", f"sum; ±{MEMORY_BAND:.0%}", lambda one: one.peak.total / GIB),
        Row("memory of a device", "GiB", "its file; of a CPU node, a rank's share", lambda one: one.capacity / GIB),
        *seconds,
        Row("step", "s", f"sum; ±{TIME_BAND:.0%}", lambda one: one.time.total),
        Row("tokens of a step", "tokens", "global batch x sequence length", lambda one: one.workload.step_tokens),
        Row("speed", "tokens/s", "tokens of a step / step", lambda one: one.tokens_per_second),
        Row("model FLOP/s", "TFLOP/s a rank", "FLOPs a token x speed / ranks", lambda one: one.model_flops / 1e12),
        Row("mfu", "fraction", "model FLOP/s / peak of the device in the format", lambda one: one.mfu),
        Row("hfu", "fraction", "mfu x FLOPs with recomputation / without", lambda one: one.hfu),
        Row("tokens of the run", "tokens", "all steps", lambda one: one.train_tokens),
        Row("time of the run", "days", "tokens of the run / speed", lambda one: one.days),
        Row("device hours", "h", "time of the run x devices; of CPUs, nodes", lambda one: one.device_hours),
        Row("energy", "kWh", "device hours x power of a device", lambda one: one.kilowatt_hours),
        Row("checkpoint", "GiB", "parameters x (4 + bytes of moments)", lambda one: one.checkpoint_bytes / GIB),
        Row("write of a checkpoint", "s", "bytes / (nodes x storage bandwidth)", lambda one: one.checkpoint_seconds),
        Row("main memory for saves", "GiB a node", "buffers of checkpoints", lambda one: one.buffer_bytes / GIB),
        Row("main memory for states", "GiB a node", "what is offloaded", lambda one: one.offloaded_bytes / GIB),
    ]


def page(sizes: Sizes, *, command: str) -> str:
    """Return the page.

    Args:
        sizes: the plan, and those of other sizes.
        command: that made it.
    """
    asked = sizes.asked
    constants = [(name, f"{value:.6g}") for name, value in asked.cluster.constants.tree().items()]
    device = [(name, str(value)) for name, value in asked.cluster.device.tree().items()]
    network = asked.cluster.network
    device += [] if network is None else [(f"network {name}", str(value)) for name, value in network.tree().items()]
    left_out = [(f"{nodes} nodes", "; ".join(problems)) for nodes, problems in sorted(sizes.left_out.items())]
    heading = html.escape(title(sizes).splitlines()[0])
    parts = [
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Plan of {heading}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        f"<h1>{heading}</h1><p>Verdict of memory: <strong>{asked.verdict}</strong>. Nothing here was run: "
        f"nine of ten published runs were within ±{MEMORY_BAND:.0%} of memory and ±{TIME_BAND:.0%} of time.</p>",
        f"<pre>{html.escape(command)}</pre>{inline_svg(sizes)}",
        f'<h2>Numbers</h2><div class="wide">{_numbers(sizes)}</div>',
        f"<h2>Sizes that are not legal</h2>{_pairs(left_out)}" if left_out else "",
        f"<h2>Device</h2>{_pairs(device)}<h2>Constants of the calibration</h2>{_pairs(constants)}",
        f"<h2>Config</h2><pre>{html.escape(json.dumps(asked.config.tree(), indent=2, ensure_ascii=False))}</pre>",
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _numbers(sizes: Sizes) -> str:
    asked = sizes.asked.layout.world_size
    marks = [' class="asked"' if one.layout.world_size == asked else "" for one in sizes.legal]
    heads = [f"<th{mark}>{one.layout.world_size:,}</th>" for mark, one in zip(marks, sizes.legal, strict=True)]
    lines = [f'<tr><th>on ranks</th>{"".join(heads)}<th>unit</th><th class="text">formula</th></tr>']
    for row in _rows():
        cells = [f"<td{mark}>{_number(row.value(one))}</td>" for mark, one in zip(marks, sizes.legal, strict=True)]
        formula = html.escape(row.formula)
        lines.append(f'<tr><td>{row.name}</td>{"".join(cells)}<td>{row.unit}</td><td class="text">{formula}</td></tr>')
    return f"<table>{''.join(lines)}</table>"


def _number(value: float) -> str:
    """Return whole numbers as they are, others with four digits."""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    cells = (f'<tr><td>{html.escape(name)}</td><td class="text">{html.escape(text)}</td></tr>' for name, text in pairs)
    return f"<table>{''.join(cells)}</table>"


def write_page(path: Path, sizes: Sizes, *, command: str) -> None:
    """Write the page to ``path``.

    Raises:
        ConfigError: its name does not end with .html, or the folder does not exist.
    """
    bad = check_path(path, "--html", (".html",))
    if bad:
        raise ConfigError(bad)
    write_whole(path, page(sizes, command=command).encode())
