"""``gptdist distill run`` and ``gptdist distill cache``: train a student on a teacher's answers, here or kept."""

import argparse
import sys
from pathlib import Path

from gptdist.cli.answer import add_json, answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    run = kinds.add_parser("run", help="train a student under a teacher on this machine")
    _add_config(run)
    run.add_argument(
        "--teacher", type=Path, metavar="PATH", help="run, checkpoint or Hugging Face folder (default: the config's)"
    )
    run.add_argument(
        "--student",
        type=Path,
        metavar="PATH",
        help="likewise, whose weights the run begins with",
    )
    run.add_argument("--dry-run", action="store_true", help="print what would run, and run nothing")
    run.set_defaults(run=_run)
    cache = kinds.add_parser("cache", help="write a teacher's logits on a run's samples, for distillation.cache")
    _add_config(cache)
    cache.add_argument("--teacher", type=Path, metavar="PATH", help="run or checkpoint (default: the config's)")
    cache.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write, or to go on with")
    kept = cache.add_mutually_exclusive_group()
    kept.add_argument(
        "--samples-per-token", type=int, metavar="K", help="draw K tokens of each place, unbiased (default: 12)"
    )
    kept.add_argument("--top-k", type=int, metavar="K", help="keep the K likeliest and one rest, which is biased")
    cache.add_argument("--samples", type=int, metavar="N", help="samples of the run (default: all of train_steps)")
    cache.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add_json(cache)
    cache.set_defaults(run=_cache)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="run config (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")


def _run(arguments: argparse.Namespace) -> int:
    import os
    import shlex
    import warnings

    warnings.filterwarnings("ignore")
    from gptdist.config.load import read_config
    from gptdist.config.run import RunConfig
    from gptdist.errors import ConfigError
    from launch.checks import check_run, read_job
    from launch.local import launch_local, local_command

    config = read_config(RunConfig, arguments.config, arguments.overrides)
    words, models = list(arguments.overrides), []
    for role, key in (("teacher", "distillation.teacher"), ("student", "training.init_from")):
        path = getattr(arguments, role)
        if path is not None:
            from gptdist.compress.distill import given_model

            models.append(given_model(path, config.folder, role))
            words.append(f"{key}={models[-1].checkpoint}")
    job = read_job(arguments.config, words)
    if job.config.distillation is None:
        raise ConfigError(
            [f"{arguments.config}: distillation: missing; name a teacher with --teacher, or a cache in it"]
        )
    cores = len(os.sched_getaffinity(0))
    if arguments.dry_run:
        for model in models:
            if model.is_imported and not model.checkpoint.exists():
                print(model.command())
        print(shlex.join(["gptdist", "launch", "local", str(arguments.config), *words]))
        print(local_command(job, cores=cores).shell_line())
        return 0
    for model in models:
        from gptdist.compress.distill import import_once

        import_once(model, config.data.tokenizer)
    check_run(job.config)
    return launch_local(job, cores=cores)


def _cache(arguments: argparse.Namespace) -> int:
    import warnings
    from dataclasses import replace

    from gptdist.config.load import load_config
    from gptdist.config.run import RunConfig
    from gptdist.errors import ConfigError

    warnings.filterwarnings("ignore")
    config = load_config(RunConfig, arguments.config, arguments.overrides)
    from gptdist.checkpoint.teacher import check_teacher
    from gptdist.compress.cache_logits import CacheOptions, CacheRun, write_cache
    from gptdist.compress.distill import taught_by
    from gptdist.data.sources import check_data

    section = taught_by(config, arguments.teacher)
    if section is None or section.teacher is None:
        raise ConfigError([f"{arguments.config}: distillation.teacher: missing; name a teacher with --teacher"])
    if section.map_vocabulary:
        raise ConfigError(["distillation.map_vocabulary: a cache is of the run's own tokens; leave it out"])
    if bad := section.path_problems():
        raise ConfigError(bad)
    config = config.model_copy(update={"distillation": section})
    tokenizer, data = check_data(config)
    options = CacheOptions(samples=arguments.samples, device=arguments.device)
    if arguments.samples_per_token is not None:
        options = replace(options, kept=arguments.samples_per_token)
    if arguments.top_k is not None:
        options = replace(options, method="top_k", kept=arguments.top_k)
    run = CacheRun(config, tokenizer, data, check_teacher(config, tokenizer))
    stream = sys.stderr if arguments.json else sys.stdout

    def progress(done: int, of: int) -> None:
        print(f"{done:,} of {of:,} samples", file=stream)

    manifest = write_cache(run, arguments.output, options, progress)
    size = sum((arguments.output / file.name).stat().st_size for file in manifest.files)
    tokens = manifest.num_samples * config.model.seq_length
    tree = {
        "teacher": run.teacher.folder,
        "teacher_step": run.teacher.manifest.step,
        "method": options.method,
        "kept_per_token": options.kept,
        "temperature": section.temperature,
        "output": arguments.output,
        "num_samples": manifest.num_samples,
        "num_bytes": size,
        "bytes_per_token": size / tokens,
    }
    lines = [
        f"teacher  {run.teacher.folder} (step {run.teacher.manifest.step})",
        f"kept     {options.method} {options.kept} at temperature {section.temperature:g}",
        f"written  {arguments.output}: {manifest.num_samples:,} samples, {size:,} bytes, {size / tokens:.1f} a token",
    ]
    answer(arguments, tree, lines)
    return 0
