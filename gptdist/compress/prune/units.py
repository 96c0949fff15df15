"""Cut out neurons and query groups whose weights are small, by their L1 or L2 norm; looks at no data.

One tensor is in memory at a time.

Letters: g query groups, r query heads of a group, d head size, f feed-forward width, h hidden.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gptdist.checkpoint.manifest import Manifest, Origin
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.weights_only import require_free, write_weights
from gptdist.compress.as_checkpoint import opened_as_checkpoint
from gptdist.compress.prune.magnitude import finite
from gptdist.compress.prune.next_run import file_problems, next_run, write_run
from gptdist.compress.prune.options import UnitOptions
from gptdist.compress.prune.parent import parents
from gptdist.compress.prune.slicing import Kept, KeptLayer, everything, pruned_config, pruned_tensors
from gptdist.compress.prune.structure import UNITS_FILE, kept_zeros, lost_classes, weights_progress, write_units
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.model.arithmetic import num_parameters


@dataclass(frozen=True)
class CutUnits:
    """What became of a model."""

    manifest: Manifest
    whole: ModelConfig
    model: ModelConfig
    gone: dict[str, tuple[int, int]]
    """How many units of each kind were cut out, and of how many."""

    not_exported: list[str]
    """Why other tools cannot load it, where they could the whole model."""


def prune_units(source: Path, output: Path, options: UnitOptions) -> CutUnits:
    """Write the model ``source`` without its smallest units as the checkpoint ``output``.

    Raises:
        CheckpointError: there is no model, it is damaged or not finite, or ``output`` exists or cannot be written.
        ConfigError: options are out of their range, or nothing or everything would go.
        ModelImportError: a folder's model has no counterpart here.
    """
    if problems := options.problems():
        raise ConfigError(problems)
    require_free(output)
    with opened_as_checkpoint(source, output) as reader:
        manifest = reader.manifest
        whole = ModelConfig.from_tree(manifest.config["model"], origin=str(reader.folder))
        if options.run_config is not None and (bad := file_problems(options.run_config, manifest.config)):
            raise ConfigError(bad)
        kept = _kept(whole, reader, options)
        gone = _counts(whole, kept, options)
        if not any(count for count, _ in gone.values()):
            raise ConfigError([_nothing(options)])
        child = pruned_config(whole, kept)
        run = None if options.run_config is None else next_run(manifest.config, child, output)
        zeros = kept_zeros(manifest.progress.zeros, pruned_tensors(whole, kept, reader.weight))
        written = write_weights(
            output,
            pruned_tensors(whole, kept, reader.weight),
            config=manifest.config | {"model": child.tree()},
            progress=weights_progress(manifest.progress, zeros),
            tokenizer_fingerprint=manifest.tokenizer_fingerprint,
            origin=Origin(kind="pruned", sources=parents(source, reader), facts=_facts(whole, child, options, gone)),
            check=lambda folder: write_units(folder / UNITS_FILE, kept),
        )
    if run is not None and options.run_config is not None:
        write_run(options.run_config, run)
    return CutUnits(written, whole, child, gone, lost_classes(whole, child))


def neuron_sizes(config: ModelConfig, layer: int, read: Callable[[str], Tensor], norm: str) -> Tensor:
    """Return the size of each feed-forward neuron of a layer, [f]: of its rows and its column, biases left out."""
    first, second = (read(f"decoder.layers.{layer}.mlp.linear_{name}.weight") for name in ("fc1", "fc2"))
    rows = list(first.chunk(2)) if config.is_gated else [first]
    return _sizes([*rows, second.t()], norm)


def group_sizes(config: ModelConfig, layer: int, read: Callable[[str], Tensor], norm: str) -> Tensor:
    """Return the size of each query group of a layer, [g]: of its queries, key, value, and columns of the output."""
    prefix, groups = f"decoder.layers.{layer}.self_attention", config.shapes()[layer].groups
    joined = read(f"{prefix}.linear_qkv.weight").reshape(groups, -1)
    out = read(f"{prefix}.linear_proj.weight")
    return _sizes([joined, out.t().reshape(groups, -1)], norm)


def _sizes(parts: Sequence[Tensor], norm: str) -> Tensor:
    """Return the size of each unit, whose weights are a row of each part."""
    power = 1 if norm == "l1" else 2
    total = sum((part.double().abs().pow(power).sum(1) for part in parts), torch.zeros((), dtype=torch.float64))
    mean = total / sum(part.shape[1] for part in parts)
    return mean if power == 1 else mean.sqrt()


def _kept(config: ModelConfig, reader: CheckpointReader, options: UnitOptions) -> Kept:
    def read(name: str) -> Tensor:
        return finite(name, reader.weight(name))

    whole = everything(config)
    return replace(whole, layers=tuple(_kept_of_layer(config, layer, read, options) for layer in whole.layers))


def _kept_of_layer(
    config: ModelConfig, layer: KeptLayer, read: Callable[[str], Tensor], options: UnitOptions
) -> KeptLayer:
    if "neurons" in options.units and layer.ffn and not config.has_experts(layer.layer):
        sizes = neuron_sizes(config, layer.layer, read, options.norm)
        layer = replace(layer, ffn=_largest(sizes, options))
    if "groups" in options.units and layer.groups:
        each = len(layer.heads) // len(layer.groups)
        groups = _largest(group_sizes(config, layer.layer, read, options.norm), options)
        layer = replace(
            layer, groups=groups, heads=tuple(group * each + head for group in groups for head in range(each))
        )
    return layer


def _largest(sizes: Tensor, options: UnitOptions) -> tuple[int, ...]:
    """Return the places of the units that stay, rising; of equal ones the first."""
    if options.threshold is not None:
        count = max(1, int((sizes >= options.threshold).sum()))
    else:
        assert options.ratio is not None, "checked before"
        count = max(1, len(sizes) - round(options.ratio * len(sizes)))
    order = torch.sort(sizes, descending=True, stable=True).indices
    return tuple(sorted(order[:count].tolist()))


def _counts(config: ModelConfig, kept: Kept, options: UnitOptions) -> dict[str, tuple[int, int]]:
    whole = everything(config)

    def count(model: Kept, kind: str) -> int:
        return sum(len(layer.ffn if kind == "neurons" else layer.groups) for layer in model.layers)

    return {kind: (count(whole, kind) - count(kept, kind), count(whole, kind)) for kind in options.units}


def _nothing(options: UnitOptions) -> str:
    if options.threshold is not None:
        return f"--threshold: no unit is smaller than {options.threshold:g} by its {options.norm} size; raise it"
    return f"--ratio: {options.ratio:g} is less than one unit of a layer; raise it"


def _facts(
    whole: ModelConfig, child: ModelConfig, options: UnitOptions, gone: dict[str, tuple[int, int]]
) -> dict[str, str]:
    amount = f"ratio {options.ratio:g}" if options.threshold is None else f"threshold {options.threshold:g}"
    return {
        "method": f"units, by {options.norm} size of weights",
        "amount": amount,
        **{kind: f"{count:,} of {of:,} cut out" for kind, (count, of) in gone.items()},
        "parameters": f"{num_parameters(child):,} of {num_parameters(whole):,}",
    }


def layer_lines(whole: ModelConfig, model: ModelConfig) -> Iterator[str]:
    """Yield what is left of each layer."""
    for number, (before, after) in enumerate(zip(whole.shapes(), model.shapes(), strict=True)):
        yield f"layer {number:<3} neurons {after.ffn:,} of {before.ffn:,}, groups {after.groups} of {before.groups}"
