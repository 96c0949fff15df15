"""Every layout of up to four ranks, and what their ranks do in the matrix of resumes."""

import math
from itertools import product
from pathlib import Path
from typing import Any

from gptdist.checkpoint.manifest import WEIGHT
from gptdist.config.layouts import ZERO_STAGES
from tests.support.datasets import GPT2
from tests.support.jobs import open_run, step_until
from tests.support.layouts import TestedLayout

MOST_RANKS = 4
STEP = 2
"""The step that is saved."""

GLOBAL_BATCH_SIZE = 12
MODEL = GPT2 | {"num_layers": 4, "hidden_size": 24, "num_attention_heads": 12, "seq_length": 24}
"""Heads, positions and samples divide by 2, 3 and 4; layers by 2 and 4."""


def _layouts() -> list[TestedLayout]:
    sizes = range(1, MOST_RANKS + 1)
    found = []
    for data, context, tensor, stages in product(sizes, repeat=4):
        world_size = data * context * tensor * stages
        if world_size > MOST_RANKS or MODEL["num_layers"] % stages:
            continue
        for sequence, zero_stage in product((False, True), ZERO_STAGES):
            layout = TestedLayout(world_size, zero_stage, tensor, sequence, context, stages)
            if not layout.kind().refusals():
                found.append(layout)
    return found


ALL_LAYOUTS = _layouts()


def storage_twin(layout: TestedLayout) -> TestedLayout:
    """Return the layout that keeps its weights as ``layout`` does, with data parallelism in place of the context's."""
    return TestedLayout(
        layout.world_size,
        layout.zero_stage,
        layout.tensor_parallel_size,
        pipeline_parallel_size=layout.pipeline_parallel_size,
    )


def matrix_sections(layout: TestedLayout) -> dict[str, Any]:
    """Return the config sections of a run on ``layout``: one micro batch a step, or one for every pipeline stage."""
    split = layout.tensor_parallel_size * layout.context_parallel_size * layout.pipeline_parallel_size
    replicas = layout.world_size // split
    micro_batch_size = GLOBAL_BATCH_SIZE // replicas // layout.pipeline_parallel_size
    batch = {"global_batch_size": GLOBAL_BATCH_SIZE, "micro_batch_size": micro_batch_size}
    return {"model": MODEL, "batch": batch, **layout.sections()}


def train_source(tree: dict[str, Any], state_file: str) -> tuple[int, float, float]:
    """Train on one rank, save, and keep the state in ``state_file`` too; return number, loss and norm of the next step.

    The file holds logical tensors [outer, length, inner], as they are in memory.
    """
    from safetensors.torch import save_file

    run = open_run(tree)
    step_until(run, STEP, STEP)
    state = {}
    for fragment in run.fragments.all():
        local, logical = fragment.local, fragment.local.logical
        for name, values in fragment.states.items():
            padded = values.view(logical.outer, local.local_length, logical.inner)
            state[f"{name}/{logical.name}"] = padded[:, : local.valid_length].clone()
    save_file(state, state_file)
    run.saver.finish()
    return step_until(run, STEP + 1)[-1]


def save_again(tree: dict[str, Any], source: str) -> None:
    """Load the checkpoint ``source`` into the new run ``tree``, and save it as this run's own."""
    run = open_run(tree)
    _take(run, source)
    _save(run)


def load_each(
    tree: dict[str, Any], folders: list[str], state_file: str
) -> tuple[list[tuple[list[str], tuple[int, ...]]], list[tuple[int, float, float]]]:
    """Load one checkpoint after the other into the run ``tree``, and save the first as this run's own.

    Return of each what is not bit for bit as in ``state_file``, and where it stands; and number, loss and gradient norm
    of the next step after the first and after the last. A step depends on nothing else than what is compared of each:
    28 steps of the same bits would take two thirds of the time. Before each but the first, all that a checkpoint holds
    is spoiled.
    """
    from safetensors.torch import load_file

    run, whole = open_run(tree), load_file(state_file)
    found: list[tuple[list[str], tuple[int, ...]]] = []
    steps = []
    for folder in folders:
        if found:
            _spoil(run)
        _take(run, folder)
        stands = run.state.step, run.state.consumed_samples, run.fragments.optimizer_step()
        different = _differences(run, whole) + _different_weights(run, whole)
        if not found:
            _save(run)
        found.append((different, stands))
        if folder in (folders[0], folders[-1]):
            steps += step_until(run, STEP + 1)
    return found, steps


def _spoil(run: Any) -> None:
    """Leave nothing that the next load may leave as it is."""
    for fragment in run.fragments.all(writes=True):
        for values in fragment.states.values():
            values.fill_(math.nan)
    for held in _weights(run).values():
        held.fill_(math.nan)
    if run.engine.stage.shared_embedding is not None:
        run.engine.stage.shared_embedding.fill_(math.nan)
    run.fragments.set_optimizer_step(0)
    run.state.step = run.state.consumed_samples = 0


def _weights(run: Any) -> dict[tuple[str, int | None], Any]:
    """Return what this rank holds of the model itself, by name and first value; None of a whole parameter."""
    held = {}
    for local in run.parameters:
        name, parameter = local.logical.name, local.parameter
        if hasattr(parameter, "ds_tensor"):
            held[name, run.mesh.copy_rank * parameter.ds_tensor.numel()] = parameter.ds_tensor.data
        if parameter.numel() == local.numel:  # under ZeRO-3 those that are never cut
            held[name, None] = parameter.data
    return held


def _take(run: Any, folder: str) -> None:
    from gptdist.train.restore import load_agreed
    from gptdist.train.run import TrainState

    manifest = load_agreed(lambda: folder, run.fragments, run.mesh)
    run.engine.stage.share_embedding()
    vars(run.state).update(vars(TrainState.of(manifest.progress)))


def _save(run: Any) -> None:
    from gptdist.train.loop import save

    save(run)
    run.saver.finish()


def _differences(run: Any, whole: dict[str, Any]) -> list[str]:
    import torch

    from gptdist.model.parameters import local_slice

    different = []
    for fragment in run.fragments.all():
        for state, values in fragment.states.items():
            key = f"{state}/{fragment.local.logical.name}"
            wanted = local_slice(whole[key], fragment.local)[fragment.start : fragment.start + fragment.numel]
            if not torch.equal(values.view(torch.int32), wanted.view(torch.int32)):
                different.append(key)
    return different


def _different_weights(run: Any, whole: dict[str, Any]) -> list[str]:
    import torch

    from gptdist.model.parameters import local_slice

    locals_, different = {local.logical.name: local for local in run.parameters}, []
    for (name, start), held in _weights(run).items():
        wanted = local_slice(whole[f"{WEIGHT}/{name}"], locals_[name])
        if start is not None:
            wanted = torch.nn.functional.pad(wanted, (0, held.numel()))[start : start + held.numel()]
        if not torch.equal(held.view(-1).view(torch.int32), wanted.view(torch.int32)):
            different.append(f"model/{name}")
    return different


def files_of(checkpoint: Path) -> tuple[Any, ...]:
    """Return what tells one way to write a state from another: files by hash, and what is where in them."""
    from gptdist.checkpoint.manifest import read_manifest

    manifest = read_manifest(checkpoint)
    return manifest.files, manifest.tensors, manifest.fragments
