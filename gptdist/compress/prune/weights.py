"""Make single weights of a checkpoint zero, and write what is left as a checkpoint."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gptdist.checkpoint.manifest import Manifest, Origin, Progress
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.weights_only import require_free, write_weights
from gptdist.compress.as_checkpoint import opened_as_checkpoint
from gptdist.compress.prune.calibration_tokens import calibration_tokens
from gptdist.compress.prune.layerwise import prune_layers
from gptdist.compress.prune.magnitude import MagnitudePruner, finite, require_some
from gptdist.compress.prune.options import WeightOptions
from gptdist.compress.prune.parent import parents
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.mesh.groups import destroy_mesh
from gptdist.model.hf_names import logical_shapes
from gptdist.model.parameters import is_hidden_matrix, layer_of
from gptdist.train.inference import load_model, single_process_mesh

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrunedWeights:
    """What became of a model."""

    manifest: Manifest
    facts: dict[str, str]
    pruned_values: int
    """Of the matrices that were pruned, zeros included."""

    zeros: int
    """Of these."""

    matrices: int


def prune_weights(source: Path, output: Path, options: WeightOptions, data: Sequence[Path] = ()) -> PrunedWeights:
    """Write the model ``source`` with zeros in its linear matrices as the checkpoint ``output``.

    Embeddings, output layer, norms, biases and routers stay as they are.

    Args:
        source: run, step folder or folder in the Hugging Face layout.
        output: where to; not there yet.
        options: what becomes zero.
        data: dataset folders to look at, in place of the tokens in ``source`` and of the run's datasets.

    Raises:
        CheckpointError: there is no model, it is damaged or not finite, or ``output`` exists or cannot be written.
        ConfigError: options are out of their range or do not go with the model; all of them at once.
        DataError: a dataset is damaged.
        ExportError: there is nothing to look at.
        ModelImportError: a folder's model has no counterpart here.
    """
    if problems := options.problems():
        raise ConfigError(problems)
    require_free(output)
    with opened_as_checkpoint(source, output) as reader:
        model = ModelConfig.from_tree(reader.manifest.config["model"], origin=str(reader.folder))
        shapes = logical_shapes(model)
        matrices = {name: shape for name, shape in shapes.items() if is_hidden_matrix(name)}
        chosen = {name: shape for name, shape in matrices.items() if layer_of(name) not in options.skipped()}
        if problems := options.model_problems(model.num_layers, chosen):
            raise ConfigError(problems)
        facts = options.facts()
        if options.looks_at_data:
            pruned, facts["calibration"] = _by_activations(source, reader, set(chosen), options, data)
        else:
            pruned = MagnitudePruner(chosen, reader.weight, model, options).pruned
        zeros = {name: _zeros(pruned(name) if name in chosen else reader.weight(name)) for name in matrices}
        of_chosen = sum(zeros[name] for name in chosen)
        total = sum(torch.Size(shape).numel() for shape in chosen.values())
        if options.threshold is not None:
            require_some(of_chosen, total, options.threshold)
        manifest = write_weights(
            output,
            ((name, pruned(name) if name in chosen else reader.weight(name)) for name in shapes),
            config=reader.manifest.config,
            progress=_progress(reader.manifest.progress, zeros),
            tokenizer_fingerprint=reader.manifest.tokenizer_fingerprint,
            origin=Origin(kind="pruned", sources=parents(source, reader), facts=facts),
        )
    return PrunedWeights(manifest, facts, pruned_values=total, zeros=of_chosen, matrices=len(chosen))


def _by_activations(
    source: Path, reader: CheckpointReader, names: set[str], options: WeightOptions, data: Sequence[Path]
) -> tuple[Callable[[str], Tensor], str]:
    """Return what gives the pruned matrices, and which tokens were looked at."""
    tokens, whence = calibration_tokens(source, reader.manifest, data, options.calibration)
    config = ModelConfig.from_tree(reader.manifest.config["model"], origin=str(reader.folder))
    logger.info("looking at %s", whence)
    try:
        model = load_model(reader, single_process_mesh(), options.device)
        parameters = dict(model.named_parameters())
        for name, parameter in parameters.items():
            finite(name, parameter)
        device = next(iter(parameters.values())).device
        prune_layers(model, config, torch.from_numpy(tokens).to(device), names, options)
    finally:
        destroy_mesh()
    return lambda name: parameters[name].detach().cpu(), whence


def _zeros(weight: Tensor) -> int:
    return int((weight == 0).sum())


def _progress(parents_progress: Progress, zeros: dict[str, int]) -> Progress:
    return Progress(
        step=parents_progress.step,
        consumed_samples=parents_progress.consumed_samples,
        consumed_tokens=parents_progress.consumed_tokens,
        optimizer_step=0,
        zeros={name: count for name, count in zeros.items() if count},
    )
