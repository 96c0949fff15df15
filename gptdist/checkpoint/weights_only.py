"""Write a checkpoint of weights alone, one tensor in memory at a time: what is averaged or imported."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptdist.checkpoint.manifest import (
    FORMAT,
    VERSION,
    WEIGHT,
    FragmentEntry,
    Manifest,
    Origin,
    Progress,
    SavedLayout,
    TensorEntry,
)
from gptdist.checkpoint.seals import write_manifest
from gptdist.checkpoint.tensor_file import write_stream
from gptdist.config.model import ModelConfig
from gptdist.durable import replace
from gptdist.errors import CheckpointError
from gptdist.mesh.layout import Layout
from gptdist.model.hf_names import logical_shapes
from gptdist.model.parameters import logical_tensor

WEIGHTS_FILE = "weights.safetensors"


def write_weights(
    final: Path,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    config: dict[str, Any],
    progress: Progress,
    tokenizer_fingerprint: str,
    origin: Origin,
    check: Callable[[Path], None] | None = None,
) -> Manifest:
    """Write the folder ``final``, which gets its name once all of it is on the disk.

    Args:
        final: where to; not there yet.
        tensors: every logical tensor of the model, in the order of ``logical_shapes``; read once.
        config: resolved config of a run, of which at least name, model and data are there.
        progress: how far the weights are trained.
        tokenizer_fingerprint: of the tokenizer that the vocabulary is of; empty where it is not known.
        origin: what the weights were made of.
        check: looks at the finished folder before it gets its name, and may refuse it.

    Raises:
        CheckpointError: ``final`` exists, the disk refuses, or a weight is not finite.
    """
    require_free(final)
    model = ModelConfig.from_tree(config["model"], origin="config")
    shapes = logical_shapes(model)
    sizes = {f"{WEIGHT}/{name}": torch.Size(shape).numel() for name, shape in shapes.items()}
    partial = final.with_name(f".partial-{final.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # left by a kill
        partial.mkdir(parents=True)
        file = write_stream(partial / WEIGHTS_FILE, sizes, _checked(tensors, shapes))
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            progress=progress,
            config=config,
            tokenizer_fingerprint=tokenizer_fingerprint,
            data_fingerprints={},
            layout=SavedLayout(world_size=1, zero_stage=0, **asdict(Layout(1, 1, 1, 1))),
            tensors=tuple(_entry(name, shape, model) for name, shape in shapes.items()),
            fragments=tuple(
                FragmentEntry(tensor=name, slice_index=0, start=0, numel=sizes[f"{WEIGHT}/{name}"], file=WEIGHTS_FILE)
                for name in shapes
            ),
            files=(file,),
            origin=origin,
        )
        write_manifest(partial, manifest)
        if check is not None:
            check(partial)
        replace(partial, final)
    except OSError as error:
        raise CheckpointError(f"{final}: not written ({error}); make room, or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def require_free(final: Path) -> None:
    """Refuse an output that exists.

    Raises:
        CheckpointError: it does.
    """
    if final.exists():
        raise CheckpointError(f"{final}: exists; remove it, or choose another folder")


def _checked(tensors: Iterable[tuple[str, Tensor]], shapes: dict[str, tuple[int, ...]]) -> Iterator[Tensor]:
    stream = iter(tensors)
    for expected, shape in shapes.items():
        name, tensor = next(stream)
        assert (name, tuple(tensor.shape)) == (expected, shape), f"{name} comes where {expected} {shape} is due"
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name}: holds numbers that are not finite; take weights from before they diverged")
        yield tensor.reshape(-1)
    assert next(stream, None) is None, "more tensors than shapes"


def _entry(name: str, shape: tuple[int, ...], model: ModelConfig) -> TensorEntry:
    logical = logical_tensor(name, shape, model)
    return TensorEntry(
        name=name,
        shape=shape,
        outer=logical.outer,
        length=logical.length,
        inner=logical.inner,
        num_slices=1,
        slice_length=logical.length,
        states=(WEIGHT,),
    )
