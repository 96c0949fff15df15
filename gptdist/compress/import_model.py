"""Make a checkpoint of weights that other programs wrote."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gptdist.checkpoint.manifest import Manifest, Origin, Progress, SourceRecord
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.same_model import model_differences
from gptdist.checkpoint.verify import describe_file
from gptdist.checkpoint.weights_only import require_free, write_weights
from gptdist.compress.bundle.sums import require_whole
from gptdist.compress.export import trained_logits
from gptdist.compress.hf_files import HuggingFaceWeights
from gptdist.compress.hf_model import load_huggingface_model
from gptdist.compress.hf_tokenizer import TOKENIZER_FILES
from gptdist.compress.parity import Parity, compare_logits, measure_rounding
from gptdist.compress.trained_on import MAX_LOGIT_BYTES
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.errors import ConfigError, ModelImportError, TokenizerError
from gptdist.model.hf_config import huggingface_config
from gptdist.model.hf_import import model_from_huggingface
from gptdist.model.hf_names import from_huggingface, tied_names
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
CHECKED_SEQUENCES = 2
CHECKED_TOKENS = 128
"""Tokens of each sequence on which logits are compared, at most."""


@dataclass(frozen=True)
class ImportOptions:
    """What goes with the weights."""

    config: RunConfig | None = None
    """Of the run that is to go on with the weights."""

    tokenizer: Path | None = None
    """Folder of the tokenizer; default: that of ``config``, else the one beside the weights."""

    is_compared: bool = True
    """Whether logits are compared with transformers', for which each of the two has to fit into memory."""


@dataclass(frozen=True)
class ImportResult:
    """What was made of what."""

    manifest: Manifest
    tokenizer: str
    """Where the tokenizer is, or why there is none."""

    parity: Parity | None = None


@dataclass(frozen=True)
class _Found:
    """What is noted beside the weights."""

    kind: Literal["huggingface", "deepspeed"]
    source: SourceRecord
    config: dict[str, Any]
    fingerprint: str

    def write(
        self, output: Path, tensors: Iterator[tuple[str, Tensor]], check: Callable[[Path], None] | None = None
    ) -> Manifest:
        return write_weights(
            output,
            tensors,
            config=self.config,
            progress=Progress(step=self.source.step or 0, consumed_samples=0, consumed_tokens=0, optimizer_step=0),
            tokenizer_fingerprint=self.fingerprint,
            origin=Origin(kind=self.kind, sources=(self.source,)),
            check=check,
        )


def import_huggingface(source: Path, output: Path, options: ImportOptions) -> ImportResult:
    """Make the checkpoint ``output`` of a folder in the Hugging Face layout, and compare its logits with transformers'.

    Raises:
        BundleError: a file is not what the folder's ``SHA256SUMS`` says.
        CheckpointError: ``output`` exists, or cannot be written.
        ModelImportError: the model has no counterpart here, files are damaged, or logits differ.
        ExportError: the config's model has no counterpart there, or transformers cannot load the folder.
        TokenizerError: the tokenizer that was named is missing or damaged.
    """
    require_free(output)
    path = source / CONFIG_FILE
    theirs = model_from_huggingface(_read_json(path), str(path))
    model = theirs if options.config is None else _checked_model(options.config.model, theirs, path)
    weights = HuggingFaceWeights(source)
    tokenizer, place = _tokenizer(options, model, source)
    files = tuple(describe_file(file) for file in [path, *weights.paths])
    record = SourceRecord(path=str(source), files=files)
    hashes = {file.name: file.sha256 for file in files}
    require_whole(source, [*hashes, *TOKENIZER_FILES], hashes)
    found = _Found("huggingface", record, _run_config(options, model, place, output.name), _fingerprint(tokenizer))
    parity: list[Parity] = []

    def compare(folder: Path) -> None:
        parity.append(_compare(source, CheckpointReader(folder), model))

    manifest = found.write(output, _all_weights(model, weights), check=compare if options.is_compared else None)
    return ImportResult(manifest, place, parity[0] if parity else None)


def import_deepspeed(source: Path, output: Path, options: ImportOptions) -> ImportResult:
    """Make the checkpoint ``output`` of what DeepSpeed's ``save_checkpoint`` wrote of this framework's model.

    Raises:
        CheckpointError: ``output`` exists, or cannot be written.
        ConfigError: there is no config, without which nothing says what the model is.
        ModelImportError: files are missing or damaged, could run code, or are of another model.
        TokenizerError: the tokenizer is missing or damaged.
    """
    from gptdist.compress.deepspeed_files import DeepSpeedWeights  # DeepSpeed takes seconds to load

    require_free(output)
    if options.config is None:
        raise ConfigError([f"{source}: DeepSpeed's files do not describe the model; name the run's config: --config"])
    weights = DeepSpeedWeights(source)
    model = options.config.model
    tokenizer, place = _tokenizer(options, model, source)
    files = tuple(describe_file(path) for path in weights.paths)
    record = SourceRecord(path=str(weights.folder), step=weights.step, files=files)
    found = _Found("deepspeed", record, _run_config(options, model, place, output.name), _fingerprint(tokenizer))
    return ImportResult(found.write(output, weights.weights(model)), place)


def import_weights(source: Path, output: Path, options: ImportOptions) -> ImportResult:
    """Import ``source`` as what it is: a folder with ``config.json``, or one that DeepSpeed wrote."""
    is_deepspeed = (source / "latest").is_file() or any(source.glob("*_model_states.pt"))
    if is_deepspeed and not (source / CONFIG_FILE).is_file():
        return import_deepspeed(source, output, options)
    return import_huggingface(source, output, options)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelImportError(
            f"{path}: cannot be read ({error}); name a folder that transformers or DeepSpeed wrote"
        ) from None
    if not isinstance(tree, dict):
        raise ModelImportError(f"{path}: is no mapping; name a folder in the Hugging Face layout")
    return tree


def _checked_model(ours: ModelConfig, theirs: ModelConfig, path: Path) -> ModelConfig:
    """Return the run's model if it computes what ``config.json`` says; with rotary positions it may know fewer.

    muP's multipliers are in other tools' weights: its model is compared as it would be exported.
    """
    exported = model_from_huggingface(huggingface_config(ours, eod_id=0), "model")
    for key, line in model_differences(theirs.tree(), exported.tree(), str(path)).items():
        if not (key == "seq_length" and ours.position_embedding == "rope" and ours.seq_length < theirs.seq_length):
            raise ModelImportError(f"{path} → the config: {line}; set the key as the weights need it")
    return ours


def _tokenizer(options: ImportOptions, model: ModelConfig, source: Path) -> tuple[Tokenizer | None, str]:
    """Return the tokenizer and its folder, or none and the reason."""
    named = options.tokenizer or (options.config.data.tokenizer if options.config is not None else None)
    try:
        tokenizer = load_tokenizer(named or source)
    except TokenizerError as error:
        if named is not None:
            raise
        return None, f"none ({error})"
    if tokenizer.vocab_size > model.vocab_size:
        raise ModelImportError(
            f"{named or source}: tokenizer of {tokenizer.vocab_size:,} ids for a model of {model.vocab_size:,}; "
            f"name the model's with --tokenizer"
        )
    return tokenizer, str(named or source)


def _fingerprint(tokenizer: Tokenizer | None) -> str:
    return "" if tokenizer is None else tokenizer.fingerprint


def _run_config(options: ImportOptions, model: ModelConfig, place: str, name: str) -> dict[str, Any]:
    tokenizer = {} if place.startswith("none (") else {"tokenizer": place}
    if options.config is None:
        return {"name": name, "model": model.tree(), "data": {"sources": [], **tokenizer}}
    tree = options.config.tree()
    return tree | {"data": tree["data"] | tokenizer}


def _all_weights(model: ModelConfig, weights: HuggingFaceWeights) -> Iterator[tuple[str, Tensor]]:
    yield from from_huggingface(model, weights.get)
    weights.require_all_read(tied_names(model) if model.tie_embeddings else None)


def _compare(source: Path, reader: CheckpointReader, model: ModelConfig) -> Parity:
    """Compare the imported model's logits with transformers' on random tokens.

    Raises:
        ModelImportError: they differ by more than rounding.
    """
    length = max(
        1, min(model.seq_length, CHECKED_TOKENS, MAX_LOGIT_BYTES // (4 * CHECKED_SEQUENCES * model.vocab_size))
    )
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.vocab_size, (CHECKED_SEQUENCES, length), generator=generator)
    # one after the other: two models at once may not fit
    ours = trained_logits(reader, tokens, "float32")
    network = load_huggingface_model(source)
    with torch.inference_mode():
        theirs = network(tokens).logits
    parity = compare_logits(ours, theirs)
    if not parity.is_equal:
        parity = Parity(**(vars(parity) | {"rounding": measure_rounding(network, tokens, theirs)}))
    if not parity.is_equal:
        raise ModelImportError(
            f"{source}: logits differ from transformers' by up to {parity.max_abs_difference:.3g} (allowed "
            f"{parity.allowed_difference:.3g}, largest logit {parity.max_abs_logit:.3g}); nothing was written, report "
            f"it with config.json"
        )
    return parity
