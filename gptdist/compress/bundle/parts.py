"""What goes with an exported model into its subfolder ``gptdist``: so that pruning and judging it need nothing else.

A part whose data are not on this machine is left out and said to be, unless it was asked for by name.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import save

from gptdist.compress.bundle.activations import ACTIVATIONS_FILE, activation_statistics, activations_bytes
from gptdist.compress.bundle.baseline import BASELINE_FILE, baseline_tree, measure_baseline
from gptdist.compress.bundle.data_card import DATA_CARD_FILE, data_card
from gptdist.compress.bundle.held_out import HELD_OUT_FILE, HeldOut, held_out_bytes, held_out_windows
from gptdist.compress.bundle.provenance import PROVENANCE_FILE, RUN_CONFIG_FILE, provenance_tree, run_config_text
from gptdist.compress.calibration import CalibrationOptions, calibration_sample
from gptdist.compress.generate import TextModel
from gptdist.compress.generations import Detector, Findings, count_findings, sample_generations
from gptdist.compress.hf_model import TrainedModel
from gptdist.compress.safetensors_export import WrittenFile, write_bytes
from gptdist.compress.sampling import SamplingOptions
from gptdist.config.model import ModelConfig
from gptdist.data.manifest import DatasetManifest
from gptdist.data.sources import TRAIN_SPLIT, VALIDATION_SPLIT
from gptdist.errors import ExportError, GptDistError
from gptdist.tokenizer.tokenizer import Tokenizer
from gptdist.train.evaluate import Evaluation

SUBFOLDER = "gptdist"
CALIBRATION_FILE = "calibration.safetensors"

_SAMPLING = SamplingOptions(max_new_tokens=64, num_samples=32, seed=0)

Made = TypeVar("Made")


@dataclass(frozen=True)
class BundleOptions:
    """Which parts; None is: where its data are there. True: or the export fails."""

    calibration: bool | None = None
    held_out: bool | None = None
    baseline: bool | None = None
    generations: bool | None = None
    """Texts of the model, of which only counts are kept."""

    activations: bool = False
    calibration_options: CalibrationOptions = field(default_factory=CalibrationOptions)
    data: tuple[Path, ...] = ()
    """Dataset folders in place of the run's."""

    detectors: tuple[Detector, ...] = ()
    """What is counted in generations."""

    sampling: SamplingOptions = _SAMPLING


@dataclass
class BundleParts:
    """What was written, and what was measured on the way."""

    tokenizer_fingerprint: str
    files: list[WrittenFile] = field(default_factory=list)
    baseline: dict[str, Any] | None = None
    findings: Findings | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """Of each part, by name."""

    left_out: dict[str, str] = field(default_factory=dict)
    """Why a part is not there, by name."""


def write_parts(
    folder: Path,
    trained: TrainedModel,
    tokenizer: Tokenizer,
    text_model: TextModel | None,
    *,
    options: BundleOptions,
    checkpoint: tuple[str, str | None],
) -> BundleParts:
    """Write every part to ``folder``: the card of its data, and the subfolder.

    Args:
        folder: of the exported model.
        trained: the checkpoint that it was made of.
        tokenizer: the one it was trained with.
        text_model: the exported model as users load it; none where it was not loaded.
        options: which parts.
        checkpoint: name of the checkpoint's folder, and the hash of its manifest where that lies on a disk.

    Raises:
        GptDistError: a part that was asked for cannot be made.
    """
    made = _Making(trained, tokenizer, text_model, options)
    (folder / SUBFOLDER).mkdir()
    parts = BundleParts(tokenizer.fingerprint)
    made.write_all(folder, parts)
    provenance = provenance_tree(
        trained.manifest,
        checkpoint=checkpoint[0],
        manifest_sha256=checkpoint[1],
        parts=parts.facts,
        left_out=parts.left_out,
    )
    _add(folder, parts, f"{SUBFOLDER}/{PROVENANCE_FILE}", _json(provenance))
    return parts


class _Making:
    """The parts of one model; what several need is made once."""

    def __init__(
        self, trained: TrainedModel, tokenizer: Tokenizer, text_model: TextModel | None, options: BundleOptions
    ) -> None:
        self._manifest, self._tokenizer = trained.manifest, tokenizer
        self._text_model, self._options = text_model, options
        self._config = trained.manifest.config
        self._model_config = ModelConfig.from_tree(self._config["model"], origin="checkpoint")

    def write_all(self, folder: Path, parts: BundleParts) -> None:
        """Write the parts in an order in which each finds what it needs."""
        options, inner = self._options, f"{SUBFOLDER}/"
        _add(folder, parts, inner + RUN_CONFIG_FILE, run_config_text(self._config).encode())
        _add(folder, parts, DATA_CARD_FILE, data_card(str(self._config["name"]), self._named_sources()).encode())
        if self._attempt(parts, "calibration", options.calibration, lambda: self.calibration) is not None:
            _add(folder, parts, inner + CALIBRATION_FILE, self._calibration_bytes())
            parts.facts["calibration"] = self._calibration_facts()
        windows = self._attempt(parts, "held_out", options.held_out, lambda: self.windows)
        if windows is not None:
            _add(folder, parts, inner + HELD_OUT_FILE, held_out_bytes(windows))
            parts.facts["held_out"] = {
                "split": VALIDATION_SPLIT,
                "windows": {one.name: len(one.ids) for one in windows},
            }
        found = self._attempt(parts, "baseline", options.baseline, self._baseline)
        if found is not None:
            parts.baseline = baseline_tree(found, self.windows, validation_loss=self._manifest.progress.validation_loss)
        parts.findings = self._attempt(parts, "generations", options.generations, self._findings)
        if parts.findings is not None:
            parts.facts["generations"] = parts.findings.tree() | {"seed": options.sampling.seed}
        if parts.baseline is not None or parts.findings is not None:
            generations = None if parts.findings is None else parts.facts["generations"]
            _add(folder, parts, inner + BASELINE_FILE, _json((parts.baseline or {}) | {"generations": generations}))
        statistics = self._attempt(parts, "activations", options.activations, self._activations)
        if statistics is not None:
            _add(folder, parts, inner + ACTIVATIONS_FILE, statistics)

    @cached_property
    def calibration(self) -> np.ndarray:
        """Token ids [n, s] of the training mixture."""
        chosen = self._options.calibration_options
        chosen = replace(chosen, length=min(chosen.length, self._model_config.seq_length))
        return calibration_sample(
            self._config, self._options.data, chosen, vocab_size=self._model_config.vocab_size
        ).astype(np.int32)

    @cached_property
    def windows(self) -> list[HeldOut]:
        """Validation windows of each source."""
        return held_out_windows(
            self._config, self._options.data, self._tokenizer, seq_length=self._model_config.seq_length
        )

    def _attempt(self, parts: BundleParts, name: str, wanted: bool | None, make: Callable[[], Made]) -> Made | None:
        if wanted is False:
            parts.left_out[name] = "not asked for"
            return None
        try:
            return make()
        except GptDistError as error:
            if wanted:
                raise
            parts.left_out[name] = error.problems[0]
            return None

    def _baseline(self) -> Evaluation:
        return measure_baseline(self._opened("baseline").model, self.windows)

    def _findings(self) -> Findings:
        if not self._options.detectors:
            raise ExportError("generations: nothing is looked for in them; name a detector")
        texts = sample_generations(self._opened("generations"), self._options.sampling)
        return count_findings(texts, self._options.detectors)

    def _activations(self) -> bytes:
        return activations_bytes(activation_statistics(self._opened("activations").model, self.calibration))

    def _opened(self, part: str) -> TextModel:
        if self._text_model is None:
            raise ExportError(f"{part}: needs the exported model, which was not loaded; leave out --no-check")
        return self._text_model

    def _folders(self) -> list[Path]:
        return list(self._options.data) or [Path(source["path"]) for source in self._config["data"]["sources"]]

    def _named_sources(self) -> Sequence[tuple[str, Path, float]]:
        """What the run was trained on, whatever is measured with."""
        sources = self._config["data"]["sources"]
        return [(Path(one["path"]).name, Path(one["path"]), float(one.get("weight") or 1.0)) for one in sources]

    def _calibration_bytes(self) -> bytes:
        seed = str(self._options.calibration_options.seed)
        return save({"input_ids": self.calibration}, metadata={"split": TRAIN_SPLIT, "seed": seed})

    def _calibration_facts(self) -> dict[str, Any]:
        """Where the tokens are from, and that no shard they are from is one of validation."""
        shards = {}
        for folder in self._folders():
            splits = DatasetManifest.read(folder).splits
            hashes = {name: sorted(shard.bin_sha256 for shard in split.shards) for name, split in splits.items()}
            shared = set(hashes[TRAIN_SPLIT]) & set(hashes.get(VALIDATION_SPLIT, ()))
            if shared:
                raise ExportError(
                    f"{folder}: shard {min(shared)[:12]} is in both splits, so calibration tokens may be validation's; "
                    f"prepare the data again"
                )
            shards[folder.name] = {
                name: {"shards": len(hashes[name]), "sha256_of_their_hashes": _digest(hashes[name])}
                for name in (TRAIN_SPLIT, VALIDATION_SPLIT)
                if name in hashes
            }
        sequences, length = self.calibration.shape
        return {
            "split": TRAIN_SPLIT,
            "seed": self._options.calibration_options.seed,
            "sequences": sequences,
            "length": length,
            "shards": shards,
            "disjoint_from_validation": True,
        }


def _add(folder: Path, parts: BundleParts, name: str, content: bytes) -> None:
    parts.files.append(replace(write_bytes(folder / name, content), name=name))


def _digest(hashes: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _json(tree: Any) -> bytes:
    return (json.dumps(tree, indent=2, ensure_ascii=False) + "\n").encode()
