"""Trained weights as a transformers model, in memory or from an exported folder."""

import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from transformers.utils import logging as transformers_logging

from gptdist.checkpoint.manifest import Manifest
from gptdist.config.model import ModelConfig
from gptdist.errors import ExportError
from gptdist.model.hf_config import huggingface_config
from gptdist.model.hf_names import logical_shapes, to_huggingface

_TOLD_AT_IMPORT = ("torchao", "torch.utils._pytree")


class TrainedModel(Protocol):
    """What an export reads: a checkpoint, or whatever holds weights the same way."""

    @property
    def manifest(self) -> Manifest:
        """What the checkpoint says of itself."""
        ...

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Every logical tensor."""
        ...

    def weight(self, name: str) -> torch.Tensor:
        """Return one whole logical tensor in fp32."""
        ...


def huggingface_weights(config: ModelConfig, trained: TrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every Hugging Face tensor of the model, with one logical tensor in memory at a time.

    Raises:
        ExportError: the checkpoint lacks a tensor of the model, or holds one that is not the model's.
    """
    expected = set(logical_shapes(config))
    missing, extra = expected - set(trained.tensor_names), set(trained.tensor_names) - expected
    if missing or extra:
        raise ExportError(
            f"checkpoint: lacks {_some(missing)}, holds {_some(extra)} beyond its model section; "
            f"take a checkpoint that this version of gptdist wrote"
        )
    for name in logical_shapes(config):
        yield from to_huggingface(config, name, trained.weight(name))


def build_huggingface_model(config: ModelConfig, trained: TrainedModel, *, eod_id: int) -> Any:
    """Return the trained model as a transformers model in fp32, ready to evaluate.

    Raises:
        ExportError: no Hugging Face class computes this model's function.
    """
    return model_of_weights(config, huggingface_weights(config, trained), eod_id=eod_id)


def model_of_weights(config: ModelConfig, weights: Iterable[tuple[str, torch.Tensor]], *, eod_id: int) -> Any:
    """Return a transformers model in fp32 of its own tensors, ready to evaluate.

    Raises:
        ExportError: no Hugging Face class computes this model's function.
    """
    tree = huggingface_config(config, eod_id=eod_id)
    with quiet_transformers():
        model_class = getattr(transformers, tree["architectures"][0])
        model, report = model_class.from_pretrained(
            None,
            config=model_class.config_class.from_dict(tree),
            state_dict=dict(weights),
            output_loading_info=True,
        )
    require_all_loaded(report, "checkpoint")
    return model.eval()


def load_huggingface_model(folder: Path) -> Any:
    """Return the model of an exported folder in fp32, ready to evaluate; never looks at a network.

    Raises:
        ExportError: transformers cannot load the folder, or finds a tensor too many or too few.
    """
    try:
        # compressed-tensors shows bars that nothing switches off
        with quiet_transformers(), redirect_stderr(io.StringIO()):
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
            if getattr(model, "hf_quantizer", None) is not None:
                with torch.inference_mode():
                    model(torch.zeros(1, 1, dtype=torch.int64))  # packed weights are unpacked by the first forward
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ExportError(f"{folder}: transformers cannot load it ({first_line}); export it again") from error
    require_all_loaded(report, str(folder))
    return model.eval()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide transformers' own progress bars and warnings: what they would say is checked here.

    With torchao installed transformers loads it for every model, and it tells of its kernels for other devices.
    """
    for name in _TOLD_AT_IMPORT:
        logging.getLogger(name).setLevel(logging.ERROR)
    verbosity, had_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


def require_all_loaded(report: dict[str, Any], where: str) -> None:
    """Refuse what transformers only warns of: a tensor it initialised itself, or did not use."""
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report[key]:
            raise ExportError(f"{where}: loading reports {key} {_some(map(str, report[key]))}; export it again")


def _some(names: Any, most: int = 3) -> str:
    """The first few of some names."""
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
