"""Cut a model to a smaller shape by the importance of its units, and write what stays as a checkpoint."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from gptdist.checkpoint.manifest import Manifest, Origin, Progress
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.weights_only import require_free, write_weights
from gptdist.compress.as_checkpoint import opened_as_checkpoint
from gptdist.compress.calibration import CalibrationOptions
from gptdist.compress.prune.calibration_tokens import calibration_tokens
from gptdist.compress.prune.held_out import held_out_tokens
from gptdist.compress.prune.importance import ImportanceOptions, measure_importance
from gptdist.compress.prune.magnitude import finite
from gptdist.compress.prune.measure import mean_loss, sliced_model
from gptdist.compress.prune.next_run import file_problems, next_run, write_run
from gptdist.compress.prune.parent import parents
from gptdist.compress.prune.predict import Prediction, Ranked, ranked
from gptdist.compress.prune.search import Layout, SearchOptions, legal_shapes
from gptdist.compress.prune.shape import RequestedShape, Shape, chosen_units
from gptdist.compress.prune.slicing import Kept, everything, pruned_config, pruned_tensors
from gptdist.config.exportable import export_problems
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.mesh.groups import Mesh, destroy_mesh
from gptdist.model.arithmetic import num_parameters
from gptdist.model.gpt import LanguageModel
from gptdist.model.parameters import is_hidden_matrix
from gptdist.train.inference import load_model, single_process_mesh

logger = logging.getLogger(__name__)

UNITS_FILE = "kept_units.json"
"""Beside the weights: which of the whole model's units are in them."""


@dataclass(frozen=True)
class StructureOptions:
    """What to cut, and what to look at."""

    requested: RequestedShape | None = None
    """Sizes; or else ``search``."""

    search: SearchOptions | None = None
    importance: ImportanceOptions = field(default_factory=ImportanceOptions)
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    held_out_sequences: int = 32
    """On which losses are measured, of the calibration's length."""

    device: str = "auto"

    data: tuple[Path, ...] = ()
    """Dataset folders in place of the run's."""

    run_config: Path | None = None
    """Where to write the config of a run that trains the smaller model on."""

    def problems(self) -> list[str]:
        """Return every value that cannot be, of any model."""
        bad = self.calibration.problems() + ([] if self.search is None else self.search.value_problems())
        if self.held_out_sequences < 1:
            bad.append(f"--held-out-sequences: must be at least 1, got {self.held_out_sequences}")
        return bad


@dataclass(frozen=True)
class Decision:
    """What stays of a model, and what that costs."""

    shape: Shape
    kept: Kept
    loss_before: float
    """Nats a token, on held-out tokens."""

    loss: float
    tried: list[Ranked]
    """Shapes of the search, the chosen one first."""


@dataclass(frozen=True)
class Structured:
    """What became of a model."""

    manifest: Manifest
    whole: ModelConfig
    model: ModelConfig
    decision: Decision
    not_exported: list[str]
    """Why other tools cannot load it, where they could the whole model."""


def prune_structure(source: Path, output: Path, options: StructureOptions) -> Structured:
    """Write the model ``source`` without its least important units as the checkpoint ``output``.

    The model has to fit into this process's memory in fp32, beside a smaller copy.

    Args:
        source: run, step folder or folder in the Hugging Face layout.
        output: where to; not there yet.
        options: what to cut.

    Raises:
        CheckpointError: there is no model, it is damaged or not finite, or ``output`` exists or cannot be written.
        ConfigError: options are out of their range, do not go with the model, or no legal shape is as small.
        DataError: a dataset is damaged or too short.
        ExportError: there is nothing to look at.
        ModelImportError: a folder's model has no counterpart here.
    """
    if problems := options.problems():
        raise ConfigError(problems)
    require_free(output)
    with opened_as_checkpoint(source, output) as reader:
        manifest = reader.manifest
        config = ModelConfig.from_tree(manifest.config["model"], origin=str(reader.folder))
        if options.run_config is not None and (bad := file_problems(options.run_config, manifest.config)):
            raise ConfigError(bad)
        found, whence = _decide(source, reader, config, options)
        child = pruned_config(config, found.kept)
        run = None if options.run_config is None else next_run(manifest.config, child, output)
        facts = {
            "method": "structure, by activations",
            "shape": f"{found.shape} of {Shape.of(config)}",
            "parameters": f"{num_parameters(child):,} of {num_parameters(config):,}",
            "loss": f"{found.loss_before:.4f} → {found.loss:.4f} nats a token, held-out",
            "calibration": whence,
        }
        zeros = kept_zeros(manifest.progress.zeros, pruned_tensors(config, found.kept, reader.weight))
        written = write_weights(
            output,
            pruned_tensors(config, found.kept, reader.weight),
            config=manifest.config | {"model": child.tree()},
            progress=weights_progress(manifest.progress, zeros),
            tokenizer_fingerprint=manifest.tokenizer_fingerprint,
            origin=Origin(kind="pruned", sources=parents(source, reader), facts=facts),
            check=lambda folder: write_units(folder / UNITS_FILE, found.kept),
        )
    if run is not None and options.run_config is not None:
        write_run(options.run_config, run)
    return Structured(written, config, child, found, lost_classes(config, child))


def _decide(
    source: Path, reader: CheckpointReader, config: ModelConfig, options: StructureOptions
) -> tuple[Decision, str]:
    """Return what stays of the model, and which tokens were looked at for it."""
    assert (options.requested is None) != (options.search is None), "either sizes or a target"
    legal = [] if options.search is None else legal_shapes(config, options.search, Layout.of(reader.manifest.config))
    requested = None if options.requested is None else options.requested.shape(config)
    looked_at, whence = calibration_tokens(source, reader.manifest, options.data, options.calibration)
    held_out = held_out_tokens(source, reader.manifest, options.data, options.calibration, options.held_out_sequences)
    logger.info("looking at %s", whence)
    with loaded(reader, options.device) as (model, mesh):
        importance = measure_importance(model, config, looked_at, options.importance)
        tried: list[Ranked] = []

        def loss_of(shape: Shape) -> float:
            kept = chosen_units(config, importance, shape)
            is_whole = kept == everything(config)
            return mean_loss(model if is_whole else sliced_model(model, config, kept, mesh), held_out)

        if options.search is not None:
            axes = options.search.chosen_axes(config)
            prediction = Prediction.measured(config, axes, loss_of)
            tried = ranked(legal, prediction, loss_of, options.search.candidates)
        shape = requested or tried[0].candidate.shape
        measured = tried[0].measured if tried else None
        loss = loss_of(shape) if measured is None else measured
        return Decision(shape, chosen_units(config, importance, shape), mean_loss(model, held_out), loss, tried), whence


@contextmanager
def loaded(reader: CheckpointReader, device: str) -> Iterator[tuple[LanguageModel, Mesh]]:
    """Give a checkpoint's model, and the mesh of this process alone.

    Raises:
        CheckpointError: a weight is not finite, or tensors are not those of the config.
    """
    try:
        mesh = single_process_mesh()
        model = load_model(reader, mesh, device)
        for name, parameter in model.named_parameters():
            finite(name, parameter)
        yield model, mesh
    finally:
        destroy_mesh()


def kept_zeros(of_whole: dict[str, int], tensors: Iterable[tuple[str, Tensor]]) -> dict[str, int]:
    """Return how many weights are zero in each matrix of the smaller model, where matrices of the whole had some."""
    if not of_whole:
        return {}
    counts = ((name, int((tensor == 0).sum())) for name, tensor in tensors if is_hidden_matrix(name))
    return {name: count for name, count in counts if count}


def weights_progress(whole: Progress, zeros: dict[str, int]) -> Progress:
    """Return how far the weights are trained; no optimizer goes on with them."""
    return Progress(
        step=whole.step,
        consumed_samples=whole.consumed_samples,
        consumed_tokens=whole.consumed_tokens,
        optimizer_step=0,
        zeros=zeros,
    )


def write_units(path: Path, kept: Kept) -> None:
    """Write which of the whole model's units are in the smaller one."""
    path.write_text(json.dumps({"format": "gptdist-kept-units", "version": 1, **asdict(kept)}) + "\n")


def lost_classes(whole: ModelConfig, child: ModelConfig) -> list[str]:
    """Return why other tools cannot load the smaller model, where they could the whole one."""
    return [] if export_problems(whole) else export_problems(child)
