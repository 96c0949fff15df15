"""Validation windows that go with a model, so that whoever has it measures what was measured here; no torch.

``held_out.safetensors`` has for each source ``input_ids/NAME``, int32 [n, s + 1]: the model reads the first s ids of a
row and predicts the last s; and ``text_bytes/NAME``, int64 [n]: UTF-8 bytes of what is predicted. Its metadata has
under ``sources`` the names with their weights, as JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gptdist.config.run import RunConfig
from gptdist.data.dataset import TokenDataset
from gptdist.data.label_mask import token_ids
from gptdist.data.order import evaluation_windows
from gptdist.data.sources import VALIDATION_SPLIT, ValidationSource, validation_sources
from gptdist.errors import BundleError, ExportError
from gptdist.tokenizer.tokenizer import Tokenizer

HELD_OUT_FILE = "held_out.safetensors"
DEFAULT_WINDOWS = 64
"""Of each chosen folder, spread over its validation split; a run's own number is its ``data.eval_samples``."""


@dataclass(frozen=True)
class HeldOut:
    """Windows of one source."""

    name: str
    weight: float
    """Share in the mixture; all shares add up to 1, and 0 is a named set, which has no part in it."""

    ids: np.ndarray
    """int32 [n, s + 1]."""

    text_bytes: np.ndarray
    """int64 [n], UTF-8 bytes of the predicted tokens."""

    @property
    def tokens(self) -> int:
        """Predicted tokens of all windows."""
        return int(self.ids.shape[0] * (self.ids.shape[1] - 1))


def held_out_windows(
    config: Mapping[str, Any], chosen: Sequence[Path], tokenizer: Tokenizer, *, seq_length: int
) -> list[HeldOut]:
    """Return the windows on which a run is validated, or windows of the ``chosen`` folders' validation splits.

    Args:
        config: resolved config of the run.
        chosen: dataset folders in place of the run's, which count alike.
        tokenizer: says how many bytes a token stands for.
        seq_length: tokens that the model predicts in a window.

    Raises:
        ConfigError: the config is not a whole run's.
        DataError: a dataset is missing, damaged or too short.
        ExportError: it holds ids that the tokenizer does not know.
    """
    sources = _chosen_sources(chosen, seq_length) if chosen else _run_sources(config)
    lengths = tokenizer.token_byte_lengths()
    return [_windows(source, lengths) for source in sources]


def held_out_bytes(sources: Sequence[HeldOut]) -> bytes:
    """Return the content of ``held_out.safetensors``."""
    tensors = {}
    for source in sources:
        tensors[f"input_ids/{source.name}"] = source.ids
        tensors[f"text_bytes/{source.name}"] = source.text_bytes
    weights = [{"name": source.name, "weight": source.weight} for source in sources]
    return save(tensors, metadata={"sources": json.dumps(weights), "split": VALIDATION_SPLIT})


def read_held_out(path: Path) -> list[HeldOut]:
    """Return what ``held_out_bytes`` was given.

    Raises:
        BundleError: the file is missing, or no such file.
    """
    try:
        with safe_open(path, framework="numpy") as opened:
            named = json.loads(opened.metadata()["sources"])
            return [
                HeldOut(
                    one["name"],
                    float(one["weight"]),
                    opened.get_tensor(f"input_ids/{one['name']}"),
                    opened.get_tensor(f"text_bytes/{one['name']}"),
                )
                for one in named
            ]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleError([f"{path}: holds no held-out windows ({error}); export the model again"]) from None


def _run_sources(config: Mapping[str, Any]) -> list[ValidationSource]:
    return validation_sources(RunConfig.from_tree(dict(config), origin="checkpoint"))


def _chosen_sources(folders: Sequence[Path], seq_length: int) -> list[ValidationSource]:
    found: list[ValidationSource] = []
    for folder in folders:
        dataset = TokenDataset(folder, VALIDATION_SPLIT)
        firsts = evaluation_windows(dataset.num_tokens, seq_length, DEFAULT_WINDOWS)
        if not firsts:
            raise ExportError(
                f"{folder}: its validation split has {dataset.num_tokens} tokens, a window has {seq_length} + 1; "
                f"name a larger dataset with --data"
            )
        name = dataset.name if dataset.name not in {one.name for one in found} else str(folder)
        found.append(ValidationSource(name, 1 / len(folders), dataset, tuple(firsts), seq_length))
    return found


def _windows(source: ValidationSource, lengths: np.ndarray) -> HeldOut:
    ids = token_ids(np.stack(source.rows(0, len(source.first_tokens))))
    if ids.min() < 0 or ids.max() >= len(lengths):
        raise ExportError(
            f"{source.dataset.folder}: holds id {int(ids.max())}, but the tokenizer knows 0 to {len(lengths) - 1}; "
            f"take data of the model's tokenizer"
        )
    return HeldOut(source.name, source.weight, ids.astype(np.int32), lengths[ids[:, 1:]].sum(axis=1).astype(np.int64))
