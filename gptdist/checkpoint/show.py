"""What a checkpoint holds, as lines to read; from its manifest alone, no torch."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gptdist.checkpoint.identity import changes
from gptdist.checkpoint.manifest import Manifest, TensorEntry, WholeStateEntry
from gptdist.config.ranges import ranges_text

_LAYER = re.compile(r"^decoder\.layers\.(\d+)\.")
_HASH_CHARACTERS = 12


def summary_lines(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield what the manifest says of the run, of how far it was, and of who saved."""
    progress, layout = manifest.progress, manifest.layout
    num_bytes = sum(file.num_bytes for file in manifest.files)
    numel = sum(math.prod(entry.shape) for entry in manifest.tensors)
    facts = {
        "checkpoint": str(folder),
        "run": str(manifest.config.get("name", "-")),
        "step": f"{progress.step:,}",
        "samples": f"{progress.consumed_samples:,}",
        "tokens": f"{progress.consumed_tokens:,}",
        "loss": f"{_nats(progress.loss)} (validation: {_nats(progress.validation_loss)})",
        "saved by": f"{layout.world_size} ranks: tensor parallel {layout.tensor_parallel_size}, pipeline "
        f"{layout.pipeline_parallel_size}, context {layout.context_parallel_size}, data {layout.data_parallel_size}, "
        f"experts {layout.expert_parallel_size}; ZeRO {layout.zero_stage}",
        "bytes": f"{num_bytes:,} in {len(manifest.files)} files",
        "parameters": f"{numel:,} in {len(manifest.tensors)} tensors",
        "tokenizer": manifest.tokenizer_fingerprint[:_HASH_CHARACTERS] or "not known",
    }
    if manifest.origin is not None:
        del facts["loss"], facts["saved by"]
        facts["weights alone"] = f"{manifest.origin.kind} of"
    yield from (f"{name:<13} {value}" for name, value in facts.items())
    for source in manifest.origin.sources if manifest.origin is not None else ():
        step = "" if source.step is None else f", step {source.step:,}"
        yield f"{'':<13} {source.path}{step}, share {source.share:g}"
    for name, value in manifest.origin.facts.items() if manifest.origin is not None else ():
        yield f"{'':<13} {name}: {value}"
    if progress.zeros:
        yield f"{'zeros':<13} {_zeros(manifest)}"
    if progress.initial_weights is not None:
        yield f"{'began from':<13} {progress.initial_weights.path}"


def checkpoint_tree(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Return what the manifest says as plain data."""
    whole = manifest.tree()
    return {
        "folder": str(folder),
        "run": manifest.config.get("name"),
        "progress": {name: value for name, value in whole["progress"].items() if name != "proof"},
        "layout": whole["layout"],
        "num_bytes": sum(file.num_bytes for file in manifest.files),
        "num_files": len(manifest.files),
        "num_parameters": sum(math.prod(entry.shape) for entry in manifest.tensors),
        "tokenizer_fingerprint": manifest.tokenizer_fingerprint,
        "origin": whole["origin"],
        "tensors": [{key: entry[key] for key in ("name", "shape", "states")} for entry in whole["tensors"]],
        "whole_states": [{key: one[key] for key in ("tensor", "state", "shape")} for one in whole["whole_states"]],
    }


def tensor_lines(
    tensors: Sequence[TensorEntry], whole_states: Sequence[WholeStateEntry] = (), *, every: bool
) -> Iterator[str]:
    """Yield a table of tensors: those that differ in the layer alone in one line, unless ``every`` gets one.

    Of ``whole_states`` the shapes are shown too.
    """
    beside: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for one in whole_states:
        beside[one.tensor] += (f"{one.state} [{' x '.join(str(size) for size in one.shape)}]",)
    groups: dict[tuple[str, tuple[int, ...], tuple[str, ...]], list[int]] = {}
    for entry in tensors:
        found = _LAYER.match(entry.name)
        name = entry.name if every or found is None else _LAYER.sub("decoder.layers.*.", entry.name)
        layers = groups.setdefault((name, entry.shape, entry.states + beside[entry.name]), [])
        layers += [] if every or found is None else [int(found[1])]
    width = max((len(name) for name, _, _ in groups), default=0)
    yield f"{'tensor':<{width}}  {'layers':>12}  {'shape':>16}  {'values':>15}  states"
    for (name, shape, states), layers in groups.items():
        values = math.prod(shape) * max(1, len(layers))
        sizes = " x ".join(str(size) for size in shape)
        yield f"{name:<{width}}  {ranges_text(layers) or '-':>12}  {sizes:>16}  {values:>15,}  {', '.join(states)}"


def difference_lines(manifest: Manifest, other: Manifest) -> Iterator[str]:
    """Yield ``was → now`` for each key of the config and each tensor that ``other`` has differently."""
    lines = changes(other.config, manifest.config)
    if manifest.tokenizer_fingerprint != other.tokenizer_fingerprint:
        was, now = other.tokenizer_fingerprint, manifest.tokenizer_fingerprint
        lines.append(f"tokenizer: {was[:_HASH_CHARACTERS]} → {now[:_HASH_CHARACTERS]}")
    mine = {entry.name: entry for entry in manifest.tensors}
    others = {entry.name: entry for entry in other.tensors}
    for name in list(others) + [name for name in mine if name not in others]:
        was, now = (_sizes(held.get(name)) for held in (others, mine))
        if was != now:
            lines.append(f"{name}: {was} → {now}")
    yield from lines or ["no difference in config, tokenizer or shapes"]


def _zeros(manifest: Manifest) -> str:
    zeros = manifest.progress.zeros
    among = sum(math.prod(entry.shape) for entry in manifest.tensors if entry.name in zeros)
    share = sum(zeros.values()) / among
    return f"{sum(zeros.values()):,} ({share:.1%}) of {among:,} values in {len(zeros)} pruned matrices"


def _sizes(entry: TensorEntry | None) -> str:
    return "not there" if entry is None else str(list(entry.shape))


def _nats(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f} nats"
