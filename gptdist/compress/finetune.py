"""A run config that goes on with any model on conversations, whole or by adapters; the usual launch trains it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.manifest import Manifest, read_manifest
from gptdist.compress.import_model import CONFIG_FILE, ImportOptions, import_huggingface
from gptdist.compress.trained_on import trained_tokenizer
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.config.source import apply_overrides
from gptdist.data.manifest import DatasetManifest
from gptdist.data.order import num_windows
from gptdist.data.sources import TRAIN_SPLIT
from gptdist.durable import write_whole
from gptdist.errors import CheckpointError, ConfigError, DataError, TokenizerError
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer

CONFIG_NAME = "finetune.yaml"
LONGEST_SAMPLE = 2048
"""Tokens of a sample where nobody says otherwise, of a model that knows more positions."""

LEARNING_RATES = {"full": 2e-5, "lora": 2e-4}
"""Of a model of billions of weights as it is usually done; small ones bear more. LoRA: Hu et al. 2021, appendix D."""

GLOBAL_BATCH_SIZE = 8
_WARMUP = 0.03
_OPTIONS_LINE = "# made by gptdist finetune with "


@dataclass(frozen=True)
class FinetuneOptions:
    """How the run is made; all else is in its config file."""

    model: Path
    """A run, a checkpoint, or a folder in the Hugging Face layout."""

    output: Path
    """Folder of the run."""

    tokenizer: Path | None = None
    """Of the model; default: the run's, or the one beside the weights."""

    data: Mapping[str, Any] = field(default_factory=dict)
    """What the data is made of, as the command says it; compared with what it said before."""

    epochs: float = 3.0
    lora_rank: int | None = None
    """Rank of the adapters; unset trains all weights."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        bad = [] if self.model.exists() else [f"{self.model}: no such run, checkpoint or Hugging Face folder"]
        if not (math.isfinite(self.epochs) and self.epochs > 0.0):
            bad.append(f"--epochs: must be above 0, got {self.epochs}")
        if self.lora_rank is not None and self.lora_rank < 1:
            bad.append(f"--lora-rank: must be at least 1, got {self.lora_rank}; leave it out to train all weights")
        return bad


@dataclass(frozen=True)
class BaseModel:
    """What is trained further."""

    checkpoint: Path
    model: ModelConfig
    tokenizer_folder: Path
    tokenizer: Tokenizer


def base_model(options: FinetuneOptions) -> BaseModel:
    """Return the model, imported into the run's folder if it is of another program.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        ExportError: its tokenizer is missing or another one.
        ModelImportError: it has no counterpart here.
        TokenizerError: there is none beside the weights.
    """
    if (options.model / CONFIG_FILE).is_file():
        return _imported(options)
    folder = resolve_checkpoint(options.model)
    manifest = read_manifest(folder)
    tokenizer = trained_tokenizer(manifest, options.tokenizer)
    return BaseModel(
        folder, _model(manifest), options.tokenizer or Path(manifest.config["data"]["tokenizer"]), tokenizer
    )


def _imported(options: FinetuneOptions) -> BaseModel:
    """Import a Hugging Face folder once, with its tokenizer."""
    tokenizer = load_tokenizer(options.tokenizer or options.model)
    folder = options.output / "tokenizer"
    if not folder.exists():
        folder.mkdir(parents=True)
        tokenizer.save(folder)
    checkpoint = options.output / "base"
    if not checkpoint.exists():
        import_huggingface(options.model, checkpoint, ImportOptions(tokenizer=folder))
    manifest = read_manifest(checkpoint)
    came_from = manifest.origin.sources[0].path if manifest.origin is not None else None
    if came_from != str(options.model):
        raise CheckpointError(
            f"{checkpoint}: was imported from {came_from}, not from {options.model}; choose another --output"
        )
    saved = load_tokenizer(folder)
    if saved.fingerprint != tokenizer.fingerprint:
        raise TokenizerError(f"{folder}: is not the tokenizer of {options.model} any more; choose another --output")
    return BaseModel(checkpoint, _model(manifest), folder, saved)


def _model(manifest: Manifest) -> ModelConfig:
    return ModelConfig.from_tree(manifest.config["model"], origin="checkpoint")


def sample_length(base: BaseModel, asked: int | None) -> int:
    """Return the tokens of a sample: as asked for, or as many as the model knows, ``LONGEST_SAMPLE`` at most.

    Raises:
        ConfigError: positions are weights of the model, and another number is asked for.
    """
    known = base.model.seq_length
    if base.model.position_embedding == "learned":
        if asked not in (None, known):
            raise ConfigError(
                [f"--seq-length: {asked}, but positions are weights of this model, which has {known}; leave it out"]
            )
        return known
    return min(known, LONGEST_SAMPLE) if asked is None else asked


def check_dataset(folder: Path, base: BaseModel, asked: int | None) -> int:
    """Return the tokens of a sample of a dataset that is there.

    Raises:
        ConfigError: its samples are of another length than asked for.
        DataError: it is no dataset, or made with another tokenizer than the model's.
    """
    manifest = DatasetManifest.read(folder)
    if manifest.tokenizer_fingerprint != base.tokenizer.fingerprint:
        raise DataError(
            f"{folder}: made with tokenizer {manifest.tokenizer_fingerprint[:12]}, the model's is "
            f"{base.tokenizer.fingerprint[:12]} ({base.tokenizer_folder}); prepare the data with that one"
        )
    packed_for = manifest.packing_seq_length
    if packed_for is not None and asked not in (None, packed_for):
        raise ConfigError([f"--seq-length: {asked}, but {folder} is packed for {packed_for}; leave it out"])
    return sample_length(base, packed_for or asked)


def write_config(
    options: FinetuneOptions, base: BaseModel, datasets: Sequence[Path], seq_length: int, overrides: Sequence[str]
) -> Path:
    """Write the run's config file, with ``overrides`` in it, and return its path.

    Raises:
        ConfigError: every reason why it cannot be trained.
        DataError: a dataset has no training split.
    """
    tree = apply_overrides(_tree(options, base, datasets, seq_length), list(overrides))
    _fill_lengths(tree, options.epochs, _samples(datasets, seq_length))
    config = RunConfig.from_tree(tree)
    if problems := config.problems(config.launch.ranks_per_node):
        raise ConfigError(problems)
    text = StringIO()
    YAML(typ="safe", pure=True).dump(tree, text)
    path = options.output / CONFIG_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (_options_line(options) + text.getvalue()).encode())
    return path


def known_config(options: FinetuneOptions) -> Path | None:
    """Return the config file that an earlier command has written; None if there is none.

    Raises:
        ConfigError: it was another command.
    """
    path = options.output / CONFIG_NAME
    if not path.exists():
        return None
    first = path.read_text(encoding="utf-8").partition("\n")[0] + "\n"
    if first.startswith(_OPTIONS_LINE) and first != _options_line(options):
        was, now = (json.loads(line.removeprefix(_OPTIONS_LINE)) for line in (first, _options_line(options)))
        changed = ", ".join(f"{key}: {was.get(key)} → {now[key]}" for key in now if was.get(key) != now[key])
        raise ConfigError([f"{path}: {changed}; edit that file, or choose another --output"])
    return path


def _options_line(options: FinetuneOptions) -> str:
    tree = asdict(options)
    return f"{_OPTIONS_LINE}{json.dumps(tree.pop('data') | tree, default=str)}\n"


def _tree(options: FinetuneOptions, base: BaseModel, datasets: Sequence[Path], seq_length: int) -> dict[str, Any]:
    kind = "full" if options.lora_rank is None else "lora"
    name = options.output.resolve().name
    tree: dict[str, Any] = {
        "name": name if name.isidentifier() else "finetune",
        "run_dir": str(options.output),
        "model": base.model.tree() | {"seq_length": seq_length},
        "data": {
            "tokenizer": str(base.tokenizer_folder),
            "sources": [{"path": str(path)} for path in datasets],
            "separate_documents": True,
            "eval_samples": 0,
        },
        "batch": {"global_batch_size": GLOBAL_BATCH_SIZE, "micro_batch_size": 1},
        "training": {"init_from": str(base.checkpoint)},
        "optimizer": {"lr": LEARNING_RATES[kind], "weight_decay": 0.0},
        "schedule": {},
        "intervals": {"log_steps": 1},
    }
    if options.lora_rank is not None:
        tree["lora"] = {"rank": options.lora_rank, "alpha": 2.0 * options.lora_rank}
    return tree


def _samples(datasets: Sequence[Path], seq_length: int) -> int:
    """Return the samples of all training splits."""
    count = 0
    for folder in datasets:
        splits = DatasetManifest.read(folder).splits
        if TRAIN_SPLIT not in splits:
            raise DataError(f"{folder}: has no split '{TRAIN_SPLIT}', only {', '.join(sorted(splits))}; add data")
        count += num_windows(splits[TRAIN_SPLIT].tokens, seq_length)
    return count


def _fill_lengths(tree: dict[str, Any], epochs: float, samples: int) -> None:
    """Set what follows from the number of samples where no override has."""
    size = tree["batch"]["global_batch_size"]
    steps_of_epoch = max(1, round(samples / size)) if isinstance(size, int) and size > 0 else 1
    training, schedule, intervals = tree["training"], tree["schedule"], tree["intervals"]
    steps = training.setdefault("train_steps", max(1, math.ceil(epochs * samples / max(1, size))))
    if not any(key.startswith("warmup") for key in schedule) and isinstance(steps, int):
        schedule["warmup_steps"] = min(max(1, round(_WARMUP * steps)), max(0, steps - 1))
    intervals.setdefault("eval_steps", steps_of_epoch)
    intervals.setdefault("save_steps", steps_of_epoch)
