"""``gptdist evaluate CHECKPOINT``: validation loss of a checkpoint, or its scores in tasks of lm-evaluation-harness."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("checkpoint", type=Path, help="run folder or step folder")
    parser.add_argument("--eval-samples", type=int, help="windows a source (0: all); default as in the run's config")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    tasks = parser.add_argument_group("tasks of lm-evaluation-harness (pip install 'gptdist[eval]')")
    tasks.add_argument("--tasks", metavar="A,B", help="names of tasks, in place of the validation loss")
    tasks.add_argument("--include", type=Path, metavar="DIR", help="folder of task files of your own")
    tasks.add_argument("--limit", type=int, metavar="N", help="documents a task at most")
    tasks.add_argument("--num-fewshot", type=int, metavar="N", help="examples before a question; default: the task's")
    tasks.add_argument("--batch-size", type=int, default=8, metavar="N", help="texts in a forward (default: 8)")
    tasks.add_argument("--tokenizer", type=Path, metavar="DIR", help="tokenizer (default: the run's)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.tasks is None:
        _evaluate(arguments)
    else:
        _evaluate_tasks(arguments)


def _evaluate_tasks(arguments: argparse.Namespace) -> None:
    import dataclasses
    import json
    import warnings
    from importlib.util import find_spec

    from gptdist.compress.harness import forbid_network, run_tasks
    from gptdist.errors import ConfigError

    names = [name for name in arguments.tasks.split(",") if name]
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
    if bad:
        raise ConfigError(bad)
    forbid_network()
    warnings.filterwarnings("ignore")
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
    scores = run_tasks(
        HarnessModel(model, mesh, tokenizer, seq_length, arguments.batch_size),
        names,
        include=arguments.include,
        limit=arguments.limit,
        num_fewshot=arguments.num_fewshot,
    )
    if arguments.json:
        found = [dataclasses.asdict(score) for score in scores]
        print(json.dumps({"checkpoint": str(folder), "step": reader.manifest.step, "scores": found}))
        return
    print(f"{folder}, step {reader.manifest.step}")
    print(f"{'task':<24} {'metric':<24} {'value':>12} {'stderr':>10} {'documents':>10}")
    for score in scores:
        stderr = "-" if score.stderr is None else f"{score.stderr:.4f}"
        print(f"{score.task:<24} {score.metric:<24} {score.value:>12.4f} {stderr:>10} {score.samples:>10,}")


def _evaluate(arguments: argparse.Namespace) -> None:
    import dataclasses
    import json
    import warnings

    from gptdist.checkpoint.find import resolve_checkpoint
    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.config.run import RunConfig
    from gptdist.data.rules import SampleRules
    from gptdist.data.sources import check_tokenizer, validation_sources
    from gptdist.errors import ConfigError, DataError

    folder = resolve_checkpoint(arguments.checkpoint)
    reader = CheckpointReader(folder)
    if not reader.manifest.config["data"].get("sources"):
        raise ConfigError([f"{folder}: imported without a run config, so it names no data; import it with --config"])
    config = RunConfig.from_tree(reader.manifest.config, origin=str(folder))
    if arguments.eval_samples is not None:
        data = config.data.model_copy(update={"eval_samples": arguments.eval_samples})
        config = config.model_copy(update={"data": data})
    problems = config.data.problems() + config.data.path_problems()
    if problems:
        raise ConfigError(problems)
    tokenizer = check_tokenizer(config)
    if tokenizer.fingerprint != reader.manifest.tokenizer_fingerprint:
        raise DataError(
            f"{config.data.tokenizer}: is not the tokenizer that {folder} was trained with; restore it from the data "
            f"that the run was trained on"
        )
    sources = validation_sources(config)

    warnings.filterwarnings("ignore")
    from gptdist.device.device import choose_device
    from gptdist.train.evaluate import EvaluationOptions, evaluate, perplexity
    from gptdist.train.inference import load_model, single_process_mesh

    mesh = single_process_mesh()
    model = load_model(reader, mesh, arguments.device)
    found = evaluate(
        model,
        sources,
        mesh,
        EvaluationOptions(
            config.batch.micro_batch_size,
            tokenizer.token_byte_lengths(),
            choose_device(arguments.device, "fp32", 0).torch_device,
            SampleRules.of(config.data, tokenizer),
        ),
    )
    if arguments.json:
        print(json.dumps({"checkpoint": str(folder), "step": reader.manifest.step, **dataclasses.asdict(found)}))
        return
    print(f"{folder}, step {reader.manifest.step}")
    head = f"{'source or set':<20} {'loss (nats/token)':>18} {'bits/byte':>10} {'perplexity':>12}"
    print(f"{head} {'tokens':>12} {'bytes':>12}")
    for one in found.sources:
        numbers = f"{one.loss:>18.4f} {one.bits_per_byte:>10.4f} {one.perplexity:>12.4g}"
        print(f"{one.name:<20} {numbers} {one.tokens:>12,} {one.text_bytes:>12,}")
    print(f"{'mixture':<20} {found.loss:>18.4f} {found.bits_per_byte:>10.4f} {perplexity(found.loss):>12.4g}")
    print("bits/byte = loss x tokens / ln 2 / UTF-8 bytes of the predicted tokens; mixture: weighted as in training")
