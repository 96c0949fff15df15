"""Quantize the weights of a model, and measure what that costs before the folder gets its name."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.verify import describe_file
from gptdist.compress.bundle.sums import write_sums
from gptdist.compress.calibration import CalibrationOptions, calibration_sample
from gptdist.compress.export import export_checkpoint
from gptdist.compress.export_folder import RECORD_FILE, RECORD_FORMAT, finished_folder
from gptdist.compress.hf_model import quiet_transformers
from gptdist.compress.judge.held_out import HeldOut, HeldOutOptions, held_out_of
from gptdist.compress.judge.judge import measure_losses
from gptdist.compress.judge.metrics import Gate
from gptdist.compress.judge.subject import HUGGING_FACE_CONFIG, Subject, open_subject
from gptdist.compress.quantize.card import quantized_card
from gptdist.compress.quantize.linear_layout import as_linear_model
from gptdist.compress.quantize.options import GPTQ, QuantizeOptions
from gptdist.compress.quantize.own_environment import write_gptq
from gptdist.compress.quantize.weight_only import linear_layers, require_quantizable, write_int4, write_int8
from gptdist.compress.safetensors_export import WrittenFile, write_text
from gptdist.errors import ConfigError, ExportError

BUNDLE = "gptdist"
CALIBRATION_FILE = Path(BUNDLE) / "calibration.safetensors"
_COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
_COPIED_OF_BUNDLE = ("calibration.safetensors", "held_out.safetensors", "run_config.yaml")


class RegressedError(Exception):
    """The quantized model is worse than its gates allow; nothing was written."""


@dataclass(frozen=True)
class QuantizeResult:
    """What was written."""

    folder: Path
    before: Mapping[str, float]
    """Loss, perplexity and bits per byte of the model as it was."""

    after: Mapping[str, float]
    bytes_before: int
    bytes_after: int
    layers: int
    """Linear layers that are quantized."""


@dataclass(frozen=True)
class _Work:
    """A quantization under way."""

    path: Path
    """The model as the user named it."""

    source: Path
    """The same as a Hugging Face folder."""

    subject: Subject
    held_out: Sequence[HeldOut]
    options: QuantizeOptions


def quantize_model(
    path: Path,
    output: Path,
    options: QuantizeOptions,
    *,
    held_out: HeldOutOptions,
    gates: Sequence[Gate] = (),
    tokenizer: Path | None = None,
) -> QuantizeResult:
    """Write the model at ``path`` to the folder ``output`` with weights in few bits.

    Args:
        path: a run, a step folder or a Hugging Face folder.
        output: not there yet, or an earlier folder that ``options`` allow to replace.
        options: how.
        held_out: what the loss is measured on before and after.
        gates: how much worse it may become.
        tokenizer: of a checkpoint, in place of the run's.

    Raises:
        ConfigError: an option is out of its range, or a library is missing.
        ExportError: the model cannot be quantized, or the folder cannot be written.
        RegressedError: a gate is passed; nothing was written.
    """
    if problems := options.problems() + _missing(options):
        raise ConfigError(problems)
    with finished_folder(output, overwrite=options.overwrite) as staging:
        with tempfile.TemporaryDirectory(prefix=".quantize-", dir=output.parent) as scratch:
            source = _as_folder(path, Path(scratch), tokenizer, held_out)
            subject = open_subject(source)
            windows = held_out_of(open_subject(path, tokenizer) if source != path else subject, held_out)
            work = _Work(path, source, subject, windows, options)
            before = measure_losses(subject, windows, {})
            layers = _write(work, staging, Path(scratch), held_out)
            _copy(source, staging)
            bytes_before = _bytes_in(source)
        after = measure_losses(open_subject(staging), windows, {})
        if failures := [line for gate in gates if (line := gate.failure(before, after))]:
            raise RegressedError("; ".join(failures))
        result = QuantizeResult(output, before, after, bytes_before, _bytes_in(staging), layers)
        _describe(work, staging, result)
    return result


def _missing(options: QuantizeOptions) -> list[str]:
    names = ["compressed_tensors"] if options.scheme == "int4" else []
    names += [] if options.backend == GPTQ else ["torchao"]
    advice = "pip install 'gptdist[compress]'"
    return [
        f"--scheme: {options.scheme} needs {name}, which is not installed; {advice}"
        for name in names
        if not find_spec(name)
    ]


def _as_folder(path: Path, scratch: Path, tokenizer: Path | None, held_out: HeldOutOptions) -> Path:
    """Return ``path`` if it is a Hugging Face folder that is not quantized yet, else an export of it."""
    config = path / HUGGING_FACE_CONFIG
    if not config.is_file():
        return export_checkpoint(path, scratch / "exported", tokenizer=tokenizer, data=held_out.data).folder
    if "quantization_config" in config.read_text(encoding="utf-8"):
        raise ExportError(f"{path}: is quantized already; name the model that it was made of")
    return path


def _write(work: _Work, staging: Path, scratch: Path, held_out: HeldOutOptions) -> int:
    """Write weights and config; return the number of layers that were quantized."""
    where, options = str(work.path), work.options
    model = as_linear_model(work.subject.model, where)
    require_quantizable(model, options, where)
    layers = len(linear_layers(model))
    source = work.source
    if model is not work.subject.model:
        source = scratch / "linear"
        with quiet_transformers():
            model.save_pretrained(source)
    if options.backend == GPTQ:
        assert options.python is not None, "checked with the options"
        tokens = _calibration(work, held_out)
        write_gptq(options.python, _own_copy(source, scratch), staging, tokens, options.weights_a_scale)
    elif options.scheme == "int8":
        write_int8(source, staging)
    else:
        write_int4(model, staging, options.weights_a_scale)
    return layers


def _own_copy(source: Path, scratch: Path) -> Path:
    """Return a folder of our own with the model's files, into which a file may be put."""
    if source.is_relative_to(scratch):
        return source
    target = scratch / "copied"
    target.mkdir()
    for file in [source / HUGGING_FACE_CONFIG, *source.glob("*.safetensors*")]:
        (target / file.name).symlink_to(file.resolve())
    return target


def _calibration(work: _Work, held_out: HeldOutOptions) -> np.ndarray:
    bundled = work.path / CALIBRATION_FILE
    if bundled.is_file() and not held_out.data:
        return load_file(bundled)["input_ids"]
    subject = work.subject
    config: dict[str, Any] = {"data": {"sources": []}}
    if not (work.path / HUGGING_FACE_CONFIG).is_file():
        from gptdist.checkpoint.manifest import read_manifest

        config = read_manifest(resolve_checkpoint(work.path)).config
    options = CalibrationOptions(length=min(CalibrationOptions.length, subject.text_model.seq_length))
    return calibration_sample(config, held_out.data, options, vocab_size=subject.texts.vocab_size)


def _copy(source: Path, staging: Path) -> None:
    """Bring what belongs to the model but is not its weights."""
    for name in _COPIED:
        if (source / name).is_file() and not (staging / name).exists():
            shutil.copyfile(source / name, staging / name)
    for name in _COPIED_OF_BUNDLE:
        if (source / BUNDLE / name).is_file():
            (staging / BUNDLE).mkdir(exist_ok=True)
            shutil.copyfile(source / BUNDLE / name, staging / BUNDLE / name)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _describe(work: _Work, staging: Path, result: QuantizeResult) -> None:
    """Write card, record and hashes."""
    pickled = [file.name for file in staging.rglob("*") if file.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    assert not pickled, f"{pickled}: only safetensors may be written"
    options = work.options
    record: dict[str, Any] = {
        "format": RECORD_FORMAT,
        "format_version": 1,
        "parent": _parent(work.path),
        "quantization": {
            "scheme": options.scheme,
            "backend": options.backend,
            "group_size": options.weights_a_scale if options.scheme == "int4" else None,
            "layers": result.layers,
        },
        "before": dict(result.before),
        "after": dict(result.after),
        "weights_bytes_before": result.bytes_before,
        "weights_bytes_after": result.bytes_after,
        "tokenizer_fingerprint": work.subject.texts.fingerprint,
    }
    for file in staging.glob("*.safetensors"):
        _finish(file)
    write_text(staging / "README.md", quantized_card(work.path.resolve().name, record))
    files = sorted(file for file in staging.rglob("*") if file.is_file())
    written = [_written(file, staging) for file in files]
    record["files"] = [asdict(file) for file in written]
    written.append(write_text(staging / RECORD_FILE, json.dumps(record, indent=2) + "\n"))
    write_sums(staging, {file.name: file.sha256 for file in written})


def _finish(file: Path) -> None:
    """Bring a file that a library wrote to the disk, readable as others are; safetensors makes it its owner's alone."""
    file.chmod(0o644)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _written(file: Path, folder: Path) -> WrittenFile:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return WrittenFile(str(file.relative_to(folder)), file.stat().st_size, digest)


def _parent(path: Path) -> dict[str, Any]:
    """Return what the model was made of, with the hash of what identifies it."""
    if not (path / HUGGING_FACE_CONFIG).is_file():
        files = [resolve_checkpoint(path) / "manifest.json"]
    elif (path / RECORD_FILE).is_file():
        files = [path / RECORD_FILE]
    else:
        files = sorted(path.glob("*.safetensors"))
    return {"path": str(path), "files": [describe_file(file).tree() for file in files]}
