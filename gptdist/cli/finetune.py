"""``gptdist finetune MODEL --data FILE --output RUN``: train a model further on conversations."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_prep.conversations.dataset import ConversationOptions, Prepared
    from gptdist.compress.finetune import BaseModel, FinetuneOptions
    from gptdist.config.run import RunConfig
    from gptdist.tokenizer.tokenizer import Tokenizer

PREP = "prep"
MADE = "conversations"
"""Dataset folder in that of the run."""

_DATA_OPTIONS = ("seq_length", "chat_template", "validation_fraction", "too_long")
_TEMPLATES = ("plain", "chatml", "llama3")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = (
        "Train a model further on JSON Lines of prompts and completions or of chats, whole or by adapters; the same "
        "command goes on where it was stopped. 'gptdist finetune prep FILE… --tokenizer DIR --output DIR --seq-length "
        "N' only writes the dataset."
    )
    parser.add_argument(
        "model", metavar="MODEL|prep", help="run, checkpoint or Hugging Face folder; prep: write a dataset from FILEs"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value|FILE", help="config values to replace; prep: files")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the run; prep: dataset")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="tokenizer (default: the model's)")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", type=Path, action="append", default=[], metavar="FILE|DIR", help="JSON Lines or dataset; repeatable"
    )
    data.add_argument("--seq-length", type=int, metavar="N", help="tokens of a sample (default: the model's, to 2048)")
    data.add_argument(
        "--chat-template", default="plain", metavar="NAME", help=f"{', '.join(_TEMPLATES)} (default: plain)"
    )
    data.add_argument(
        "--validation-fraction", type=float, default=0.05, metavar="F", help="of conversations (default: %(default)s)"
    )
    data.add_argument(
        "--too-long", choices=["refuse", "cut", "drop"], default="refuse", help="conversations beyond a sample"
    )
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=float, default=3.0, metavar="N", help="times over the data (default: 3)")
    training.add_argument("--lora-rank", type=int, metavar="R", help="train adapters of this rank, not the weights")
    training.add_argument("--dry-run", action="store_true", help="write the config, print what would train it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prepare data, or train."""
    return _prepare(arguments) if arguments.model == PREP else _finetune(arguments)


def _prepare(arguments: argparse.Namespace) -> int:
    from gptdist.errors import ConfigError
    from gptdist.tokenizer.tokenizer import load_tokenizer

    bad = [] if arguments.overrides else ["finetune prep: no FILE; name JSON Lines of prompts and completions or chats"]
    bad += [] if not arguments.data else ["--data: prep takes its files without it; write them behind 'prep'"]
    bad += [] if arguments.tokenizer else ["--tokenizer: missing; name that of the model"]
    bad += [] if arguments.seq_length is not None else ["--seq-length: missing; say the tokens of a sample"]
    if bad:
        raise ConfigError(bad)
    files = [Path(name) for name in arguments.overrides]
    _tell(_written(arguments, files, arguments.output, load_tokenizer(arguments.tokenizer), arguments.seq_length))
    return 0


def _finetune(arguments: argparse.Namespace) -> int:
    import os
    import warnings

    from gptdist.compress.finetune import FinetuneOptions, known_config
    from launch.checks import check_run, read_job
    from launch.local import launch_local

    # megatron-core says at import that optional CUDA libraries are not there; nothing here needs them
    warnings.filterwarnings("ignore", module=r"megatron")
    options = FinetuneOptions(
        model=Path(arguments.model),
        output=arguments.output,
        tokenizer=arguments.tokenizer,
        data={
            "data": [str(path) for path in arguments.data],
            **{name: getattr(arguments, name) for name in _DATA_OPTIONS},
        },
        epochs=arguments.epochs,
        lora_rank=arguments.lora_rank,
    )
    _check(arguments, options)
    config = known_config(options)
    if config is None:
        config = _new_config(arguments, options)
        job = read_job(config, arguments.overrides)
    else:
        job = read_job(config, arguments.overrides)
        _check_same_files(arguments, job.config)
    print(f"config      {config}: {job.config.training.train_steps:,} steps")
    if arguments.dry_run:
        print(f"to train    gptdist launch local {' '.join([str(config), *arguments.overrides])}")
        print("            or 'launch slurm', 'launch hostfile', 'launch k8s' in place of 'launch local'")
        return 0
    check_run(job.config)
    return launch_local(job, cores=len(os.sched_getaffinity(0)))


def _check_same_files(arguments: argparse.Namespace, config: "RunConfig") -> None:
    """Refuse to go on with files that have changed since the dataset was made of them."""
    from gptdist.tokenizer.tokenizer import load_tokenizer

    files, made = _files(arguments), arguments.output / MADE
    if files and made.exists():
        _written(arguments, files, made, load_tokenizer(config.data.tokenizer), config.model.seq_length)


def _files(arguments: argparse.Namespace) -> list[Path]:
    return [path for path in arguments.data if not path.is_dir()]


def _check(arguments: argparse.Namespace, options: "FinetuneOptions") -> None:
    from gptdist.errors import ConfigError

    bad = options.problems()
    bad += [] if arguments.data else ["--data: missing; name a file of JSON Lines, or a dataset folder"]
    bad += [f"{path}: no such file or folder; change the path" for path in arguments.data if not path.exists()]
    bad += [f"{word}: is no key=value; name files with --data" for word in arguments.overrides if "=" not in word]
    if bad:
        raise ConfigError(bad)


def _new_config(arguments: argparse.Namespace, options: "FinetuneOptions") -> Path:
    from gptdist.compress.finetune import base_model, write_config

    base = base_model(options)
    seq_length, datasets = _datasets(arguments, base)
    return write_config(options, base, datasets, seq_length, arguments.overrides)


def _datasets(arguments: argparse.Namespace, base: "BaseModel") -> tuple[int, list[Path]]:
    """Return the tokens of a sample and the dataset folders, one of all files and those that are there."""
    from gptdist.compress.finetune import check_dataset, sample_length
    from gptdist.errors import ConfigError

    folders = [path for path in arguments.data if path.is_dir()]
    lengths = {check_dataset(folder, base, arguments.seq_length) for folder in folders}
    if len(lengths) > 1:
        raise ConfigError([f"--data: packed for {sorted(lengths)} tokens; prepare all for one length"])
    seq_length = lengths.pop() if lengths else sample_length(base, arguments.seq_length)
    if files := _files(arguments):
        made = arguments.output / MADE
        _tell(_written(arguments, files, made, base.tokenizer, seq_length))
        folders.append(made)
    return seq_length, folders


def _written(
    arguments: argparse.Namespace, files: list[Path], output: Path, tokenizer: "Tokenizer", seq_length: int
) -> "Prepared":
    from data_prep.conversations.dataset import prepare_conversations

    return prepare_conversations(files, output, tokenizer, _options(arguments, seq_length))


def _options(arguments: argparse.Namespace, seq_length: int) -> "ConversationOptions":
    from data_prep.conversations.dataset import ConversationOptions

    return ConversationOptions(
        seq_length=seq_length,
        chat_template=arguments.chat_template,
        validation_fraction=arguments.validation_fraction,
        too_long=arguments.too_long,
    )


def _tell(prepared: "Prepared") -> None:
    counts = prepared.counts
    for split, one in counts.splits.items():
        print(
            f"{split:<11} {one.conversations:,} conversations in {one.samples:,} samples: {one.tokens:,} tokens, "
            f"{one.learnt_tokens:,} of them learnt, and {one.padding_tokens:,} of padding"
        )
    if counts.cut or counts.dropped:
        print(f"too long    {counts.cut:,} conversations cut, {counts.dropped:,} left out")
