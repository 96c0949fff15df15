"""The mean of several checkpoints' weights, one tensor in memory at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gptdist.checkpoint.find import resolve_checkpoint, step_folders
from gptdist.checkpoint.manifest import Manifest, Origin, Progress
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.same_model import model_differences
from gptdist.checkpoint.verify import source_record
from gptdist.checkpoint.weights_only import require_free, write_weights
from gptdist.config.model import ModelConfig
from gptdist.errors import CheckpointError
from gptdist.model.hf_names import logical_shapes


def newest_folders(run: Path, count: int) -> list[Path]:
    """Return the ``count`` newest step folders of a run, oldest first.

    Raises:
        CheckpointError: there are not so many.
    """
    found = step_folders(run / "checkpoints") or step_folders(run)
    if len(found) < count:
        raise CheckpointError(f"{run}: --last {count} of {len(found)} checkpoints; ask for as many as there are")
    return found[:count][::-1]


def average(paths: Sequence[Path], output: Path, shares: Sequence[float] | None = None) -> Manifest:
    """Write the mean of the weights of ``paths`` as the checkpoint ``output``; it holds no optimizer state.

    Args:
        paths: run folders, of which the newest whole checkpoint is taken, or step folders.
        output: where to; not there yet.
        shares: how much each counts, in the order of ``paths``; default: all the same.

    Raises:
        CheckpointError: one is damaged, is of another model or tokenizer, or comes twice, or the shares do not fit.
    """
    require_free(output)
    portions = _portions(len(paths), shares)
    readers = [CheckpointReader(resolve_checkpoint(path)) for path in paths]
    _require_alike(readers)
    newest = max((reader.manifest for reader in readers), key=lambda manifest: manifest.step)
    progress = newest.progress
    sources = tuple(
        source_record(reader.folder, reader.manifest, share=share)
        for reader, share in zip(readers, portions, strict=True)
    )
    return write_weights(
        output,
        _means(readers, portions),
        config=newest.config,
        progress=Progress(
            step=progress.step,
            consumed_samples=progress.consumed_samples,
            consumed_tokens=progress.consumed_tokens,
            optimizer_step=0,
        ),
        tokenizer_fingerprint=newest.tokenizer_fingerprint,
        origin=Origin(kind="average", sources=sources),
    )


def _portions(count: int, shares: Sequence[float] | None) -> list[float]:
    if count < 2:
        raise CheckpointError(f"average: needs at least 2 checkpoints, got {count}; name more, or use --last")
    shares = [1.0] * count if shares is None else shares
    if len(shares) != count or not all(0.0 < share < float("inf") for share in shares):
        raise CheckpointError(
            f"--weights: {' '.join(f'{share:g}' for share in shares)} for {count} checkpoints; "
            f"give one number above 0 for each"
        )
    return [share / sum(shares) for share in shares]


def _shapes(reader: CheckpointReader) -> dict[str, tuple[int, ...]]:
    return logical_shapes(ModelConfig.from_tree(reader.manifest.config.get("model", {}), origin=str(reader.folder)))


def _require_alike(readers: Sequence[CheckpointReader]) -> None:
    first = readers[0]
    for reader in readers:
        for name, shape in _shapes(reader).items():
            if reader.entry(name).shape != shape:
                raise CheckpointError(
                    f"{reader.folder}: '{name}' is {list(reader.entry(name).shape)}, the model section says "
                    f"{list(shape)}; the manifest is damaged, use another checkpoint"
                )
    for index, reader in enumerate(readers[1:], start=1):
        where = f"{first.folder} and {reader.folder}"
        if any(reader.folder.resolve() == other.folder.resolve() for other in readers[:index]):
            raise CheckpointError(f"{reader.folder}: named twice; name it once, and give it its share with --weights")
        for line in model_differences(
            first.manifest.config.get("model", {}), reader.manifest.config.get("model", {}), where
        ).values():
            raise CheckpointError(f"{where}: {line}; average checkpoints of one model")
        if reader.manifest.tokenizer_fingerprint != first.manifest.tokenizer_fingerprint:
            raise CheckpointError(
                f"{where}: tokenizer {first.manifest.tokenizer_fingerprint[:12]} → "
                f"{reader.manifest.tokenizer_fingerprint[:12]}; average checkpoints of one tokenizer"
            )


def _means(readers: Sequence[CheckpointReader], portions: Sequence[float]) -> Iterator[tuple[str, Tensor]]:
    for name, shape in _shapes(readers[0]).items():
        total = torch.zeros(shape, dtype=torch.float64)  # in fp32 the mean of equal numbers need not be that number
        for reader, portion in zip(readers, portions, strict=True):
            total.add_(reader.weight(name), alpha=portion)
        yield name, total.float()
