"""Write a checkpoint as a folder that transformers loads, and prove that it computes the same function.

The folder is written under another name beside its own and gets its own only after the check; a reader never sees a
folder that is half-written or wrong.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.manifest import MANIFEST_NAME
from gptdist.checkpoint.read import CheckpointReader
from gptdist.compress.bundle.parts import BundleOptions, BundleParts, write_parts
from gptdist.compress.bundle.sums import file_sha256, write_sums
from gptdist.compress.export_folder import RECORD_FILE, RECORD_FORMAT, finished_folder
from gptdist.compress.generate import TextModel
from gptdist.compress.hf_model import TrainedModel, huggingface_weights, load_huggingface_model, quiet_transformers
from gptdist.compress.hf_tokenizer import require_same_ids, tokenizer_files
from gptdist.compress.model_card import model_card
from gptdist.compress.parity import Parity, compare_logits, measure_rounding, require_equal
from gptdist.compress.safetensors_export import FORMATS, WrittenFile, write_model, write_text
from gptdist.compress.trained_on import trained_tokenizer, validation_sample
from gptdist.config.exportable import huggingface_class
from gptdist.config.model import ModelConfig
from gptdist.errors import ExportError
from gptdist.mesh.groups import destroy_mesh
from gptdist.model.arithmetic import num_parameters
from gptdist.model.hf_config import generation_config, huggingface_config
from gptdist.model.hf_names import huggingface_shapes
from gptdist.tokenizer.tokenizer import Tokenizer
from gptdist.train.inference import load_model, single_process_mesh

logger = logging.getLogger(__name__)

DEFAULT_SHARD_BYTES = 5_000_000_000

Logits = Callable[[torch.Tensor, str], torch.Tensor]
"""The trained model's logits of tokens, with weights rounded to a dtype; [b, s] -> [b, s, v]."""


@dataclass(frozen=True)
class ExportOptions:
    """How the folder is written."""

    dtype: str = "float32"
    """``float32`` or ``bfloat16``."""
    max_shard_bytes: int = DEFAULT_SHARD_BYTES
    """Most bytes of weights in one file."""
    overwrite: bool = False
    """Whether an earlier export is replaced."""
    is_compared: bool = True
    """Whether what was written is loaded and compared with the trained model, for which each has to fit into memory."""


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote, and how it compared."""

    folder: Path
    huggingface_class: str
    step: int
    parity: Parity | None
    """None where nothing was compared."""
    files: tuple[WrittenFile, ...]
    parameters: int
    parts: BundleParts

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.num_bytes for file in self.files)


def export_checkpoint(
    checkpoint: Path,
    output_folder: Path,
    *,
    tokenizer: Path | None = None,
    data: Sequence[Path] = (),
    options: ExportOptions | None = None,
    bundle: BundleOptions | None = None,
) -> ExportResult:
    """Write the newest whole checkpoint of ``checkpoint`` to ``output_folder`` in the Hugging Face layout.

    Args:
        checkpoint: a run folder, its checkpoints folder, or a step folder.
        output_folder: where to; not there yet, or an earlier export that ``options`` allow to replace.
        tokenizer: folder of the tokenizer; default: the run's.
        data: dataset folders on whose splits is compared and measured; default: the run's.
        options: format and size of the files.
        bundle: what goes with the model.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        TokenizerError: the tokenizer is missing or damaged, or has no equivalent.
        DataError: a dataset is missing or damaged.
        ExportError: the tokenizer is not the one of the checkpoint, the model has no counterpart, the folder cannot
            be written, or what was written computes another function.
    """
    reader = CheckpointReader(resolve_checkpoint(checkpoint))
    options, bundle = options or ExportOptions(), replace(bundle or BundleOptions(), data=tuple(data))
    trained_with = trained_tokenizer(reader.manifest, tokenizer)
    sample = validation_sample(reader.manifest.config, data) if options.is_compared else None
    return export_model(
        reader,
        output_folder,
        tokenizer=trained_with,
        sample_tokens=sample,
        options=options,
        logits=partial(trained_logits, reader),
        bundle=bundle,
    )


def export_model(
    trained: TrainedModel,
    output_folder: Path,
    *,
    tokenizer: Tokenizer,
    sample_tokens: np.ndarray | None,
    options: ExportOptions,
    logits: Logits,
    bundle: BundleOptions | None = None,
) -> ExportResult:
    """Write an open checkpoint; see ``export_checkpoint``.

    Args:
        trained: the checkpoint's reader.
        output_folder: where to.
        tokenizer: the one it was trained with.
        sample_tokens: token ids [b, s] for the comparison; none where ``options`` ask for none.
        options: format and size of the files.
        logits: computes the trained model's logits.
        bundle: what goes with the model.

    Raises:
        ExportError: as ``export_checkpoint``.
    """
    config = ModelConfig.from_tree(trained.manifest.config["model"], origin="checkpoint")
    huggingface_class(config)  # refused now, and not with a folder half-written
    tokens = _checked_tokens(sample_tokens, config, options.dtype)
    parity, text_model = None, None
    with finished_folder(output_folder, overwrite=options.overwrite) as folder:
        files = _write_weights(folder, config, trained, options)
        files += _write_descriptions(folder, config, tokenizer, options.dtype)
        if tokens is not None:
            where = str(output_folder)
            parity, text_model = _check(folder, tokenizer, tokens, dtype=options.dtype, logits=logits, where=where)
        parts = write_parts(
            folder,
            trained,
            tokenizer,
            text_model,
            options=bundle or BundleOptions(),
            checkpoint=_checkpoint_of(trained),
        )
        files += parts.files
        _write_records(folder, trained, options, (parity, parts), files)
    return ExportResult(
        folder=output_folder,
        huggingface_class=huggingface_class(config),
        step=trained.manifest.step,
        parity=parity,
        files=tuple(files),
        parameters=num_parameters(config),
        parts=parts,
    )


def trained_logits(reader: CheckpointReader, tokens: torch.Tensor, dtype: str) -> torch.Tensor:
    """Return the trained model's logits, computed in fp32 from weights rounded to ``dtype``.

    Shapes: tokens [b, s] -> [b, s, v].
    """
    mesh = single_process_mesh()
    try:
        model = load_model(reader, mesh)
        positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        with torch.inference_mode():
            for parameter in model.parameters():
                parameter.copy_(parameter.to(FORMATS[dtype][1]))
            logits: torch.Tensor = model(tokens, positions, None)
    finally:
        destroy_mesh()
    return logits


def _write_records(
    folder: Path,
    trained: TrainedModel,
    options: ExportOptions,
    found: tuple[Parity | None, BundleParts],
    files: list[WrittenFile],
) -> None:
    """Write what tells of all others, and the hashes of all; ``files`` grows by it."""
    config = ModelConfig.from_tree(trained.manifest.config["model"], origin="checkpoint")
    parity, parts = found
    record = {
        "format": RECORD_FORMAT,
        "format_version": 1,
        "run": trained.manifest.config["name"],
        "step": trained.manifest.step,
        "huggingface_class": huggingface_class(config),
        "dtype": options.dtype,
        "parameters": num_parameters(config),
        "tokenizer_fingerprint": parts.tokenizer_fingerprint,
        "parity": None if parity is None else parity.tree(),
        "left_out": parts.left_out,
    }
    measured = {"baseline": parts.baseline, "findings": parts.findings}
    files.append(write_text(folder / "README.md", model_card(trained.manifest, config, record | measured)))
    record["files"] = [asdict(file) for file in files]
    files.append(write_text(folder / RECORD_FILE, json.dumps(record, indent=2) + "\n"))
    write_sums(folder, {file.name: file.sha256 for file in files})


def _checkpoint_of(trained: TrainedModel) -> tuple[str, str | None]:
    """The name of a checkpoint's folder and its manifest's hash; without the latter where it is in memory alone."""
    if isinstance(trained, CheckpointReader):
        return trained.folder.name, file_sha256(trained.folder / MANIFEST_NAME)
    return f"step_{trained.manifest.step:08d}", None


def _checked_tokens(sample: np.ndarray | None, config: ModelConfig, dtype: str) -> torch.Tensor | None:
    """The tokens of the comparison, if the model can read them."""
    if dtype not in FORMATS:
        raise ExportError(f"dtype: {dtype} is not known; use {' or '.join(FORMATS)}")
    if sample is None:
        return None
    tokens = torch.from_numpy(np.asarray(sample, dtype=np.int64))
    if tokens.dim() != 2 or not tokens.numel() or tokens.shape[1] > config.seq_length:
        raise ExportError(
            f"sample tokens: shape {tuple(tokens.shape)}; give [sequences, tokens], "
            f"at least 1 of each and at most {config.seq_length} tokens"
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= config.vocab_size:
        raise ExportError(
            f"sample tokens: ids from {low} to {high}, but the model knows 0 to {config.vocab_size - 1}; "
            f"take the data that the model was trained with"
        )
    return tokens


def _write_weights(
    folder: Path, config: ModelConfig, trained: TrainedModel, options: ExportOptions
) -> list[WrittenFile]:
    logger.info("writing %s weights of %s parameters", options.dtype, f"{num_parameters(config):,}")
    return write_model(
        folder,
        huggingface_shapes(config),
        huggingface_weights(config, trained),
        dtype=options.dtype,
        max_shard_bytes=options.max_shard_bytes,
    )


def _write_descriptions(folder: Path, config: ModelConfig, tokenizer: Tokenizer, dtype: str) -> list[WrittenFile]:
    """Everything else that transformers reads."""
    texts = {
        "config.json": json.dumps(huggingface_config(config, eod_id=tokenizer.eod_id, dtype=dtype), indent=2) + "\n",
        "generation_config.json": json.dumps(generation_config(tokenizer.eod_id), indent=2) + "\n",
    }
    texts |= tokenizer_files(tokenizer, config.seq_length)
    return [write_text(folder / name, text) for name, text in texts.items()]


def _check(
    folder: Path, tokenizer: Tokenizer, tokens: torch.Tensor, *, dtype: str, logits: Logits, where: str
) -> tuple[Parity, TextModel]:
    """Load the folder as a user would, and compare tokenizer and logits with what was trained."""
    from transformers import AutoTokenizer

    logger.info("comparing logits on %d x %d tokens", *tokens.shape)
    with quiet_transformers():
        exported_tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        require_same_ids(tokenizer, exported_tokenizer, tokens.tolist(), where)
    # one after the other: two models at once may not fit
    expected = logits(tokens, dtype)
    model = load_huggingface_model(folder)
    with torch.inference_mode():
        found = model(tokens).logits
    parity = compare_logits(expected, found)
    if not parity.is_equal:
        parity = replace(parity, rounding=measure_rounding(model, tokens, found))
        model.float()  # it was in fp64 for that; its values are fp32's
    require_equal(parity, where)
    return parity, TextModel(model, exported_tokenizer)
