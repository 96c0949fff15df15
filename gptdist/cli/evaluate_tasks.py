"""Tasks of lm-evaluation-harness for ``gptdist evaluate --tasks``."""

import argparse
import dataclasses
from importlib.util import find_spec
from typing import Any

from gptdist.cli.answer import print_json
from gptdist.errors import ConfigError


def evaluate_tasks(arguments: argparse.Namespace) -> None:
    """Run the tasks that are named, and print their scores.

    Raises:
        ConfigError: a value is out of its range, or the harness is not installed.
    """
    import warnings

    from gptdist.compress.harness import forbid_network, run_tasks

    names = [name for name in arguments.tasks.split(",") if name]
    if bad := _problems(arguments, names):
        raise ConfigError(bad)
    forbid_network()
    warnings.filterwarnings("ignore")
    is_folder = (arguments.checkpoint / "config.json").is_file()
    model, told = (_of_folder if is_folder else _of_checkpoint)(arguments)
    scores = run_tasks(
        model, names, include=arguments.include, limit=arguments.limit, num_fewshot=arguments.num_fewshot
    )
    if arguments.json:
        print_json({**told, "scores": [dataclasses.asdict(score) for score in scores]})
        return
    print(", step ".join(str(value) for value in told.values()))
    print(f"{'task':<24} {'metric':<24} {'value':>12} {'stderr':>10} {'documents':>10}")
    for score in scores:
        stderr = "-" if score.stderr is None else f"{score.stderr:.4f}"
        print(f"{score.task:<24} {score.metric:<24} {score.value:>12.4f} {stderr:>10} {score.samples:>10,}")


def _problems(arguments: argparse.Namespace, names: list[str]) -> list[str]:
    bad = [] if names else ["--tasks: names no task; name one"]
    bad += [
        f"--{name}: must be at least 1, got {value}"
        for name, value in (("limit", arguments.limit), ("batch-size", arguments.batch_size))
        if value is not None and value < 1
    ]
    if arguments.include is not None and not arguments.include.is_dir():
        bad.append(f"--include: folder '{arguments.include}' does not exist; change the path")
    if find_spec("lm_eval") is None:
        bad.append("--tasks: lm-evaluation-harness is not installed; pip install 'gptdist[eval]'")
    return bad


def _of_checkpoint(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return the harness's adapter of a checkpoint, and what it is."""
    from gptdist.checkpoint.find import resolve_checkpoint
    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.compress.harness_model import HarnessModel
    from gptdist.compress.trained_on import trained_tokenizer
    from gptdist.train.inference import load_model, single_process_mesh

    folder = resolve_checkpoint(arguments.checkpoint)
    reader = CheckpointReader(folder)
    tokenizer = trained_tokenizer(reader.manifest, arguments.tokenizer)
    mesh = single_process_mesh()
    model = load_model(reader, mesh, arguments.device)
    seq_length = reader.manifest.config["model"]["seq_length"]
    adapter = HarnessModel(model, mesh, tokenizer, seq_length, arguments.batch_size)
    return adapter, {"checkpoint": str(folder), "step": reader.manifest.step}


def _of_folder(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return the harness's own adapter of a model that transformers loads, and what it is."""
    from lm_eval.models.huggingface import HFLM

    from gptdist.compress.judge.subject import open_subject

    text_model = open_subject(arguments.checkpoint, arguments.tokenizer).text_model
    adapter = HFLM(
        pretrained=text_model.model,
        tokenizer=text_model.tokenizer,
        batch_size=arguments.batch_size,
        max_length=text_model.seq_length,
        device=str(text_model.model.device),
    )
    return adapter, {"model": str(arguments.checkpoint)}
