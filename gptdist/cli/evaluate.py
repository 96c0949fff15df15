"""``gptdist evaluate MODEL``: what a checkpoint or a Hugging Face folder is worth, by numbers or in tasks."""

import argparse
from pathlib import Path

from gptdist.cli.answer import add_json, answer, print_json
from gptdist.cli.judge_options import add_judge_arguments
from gptdist.cli.model_folder import CONFIG_FILE
from gptdist.cli.quiet import hidden_libraries


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument(
        "checkpoint", type=Path, metavar="MODEL", help="run folder, step folder, or folder in the Hugging Face layout"
    )
    parser.add_argument("--eval-samples", type=int, help="windows a source (0: all); default as in the run's config")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add_json(parser)
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="tokenizer (default: the run's)")
    add_judge_arguments(parser, "loss")
    tasks = parser.add_argument_group("tasks of lm-evaluation-harness (pip install 'gptdist[eval]')")
    tasks.add_argument("--tasks", metavar="A,B", help="names of tasks, in place of the validation loss")
    tasks.add_argument("--include", type=Path, metavar="DIR", help="folder of task files of your own")
    tasks.add_argument("--limit", type=int, metavar="N", help="documents a task at most")
    tasks.add_argument("--num-fewshot", type=int, metavar="N", help="examples before a question; default: the task's")
    tasks.add_argument("--batch-size", type=int, default=8, metavar="N", help="texts in a forward (default: 8)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.tasks is not None:
        from gptdist.cli.evaluate_tasks import evaluate_tasks

        evaluate_tasks(arguments)
    elif _is_of_a_run(arguments):
        from gptdist.checkpoint.find import expect_checkpoint

        expect_checkpoint(arguments.checkpoint)
        _evaluate(arguments)
    else:
        _judge(arguments)


def _is_of_a_run(arguments: argparse.Namespace) -> bool:
    """Whether the run's own validation loss is asked for: by its rules, and of every model, exportable or not."""
    is_plain = arguments.suite is None and arguments.reference is None and not arguments.data
    return is_plain and not (arguments.checkpoint / CONFIG_FILE).is_file()


@hidden_libraries()
def _judge(arguments: argparse.Namespace) -> None:
    from gptdist.cli.judge_options import held_out_options, judge_options
    from gptdist.compress.judge.held_out import held_out_of
    from gptdist.compress.judge.judge import judge, material_of, needs_held_out
    from gptdist.compress.judge.subject import open_subject
    from gptdist.compress.judge.table import judgement_lines

    options, held_out = judge_options(arguments, "loss"), held_out_options(arguments)
    subject = open_subject(arguments.checkpoint, arguments.tokenizer)
    reference = None if arguments.reference is None else open_subject(arguments.reference, None)
    is_needed = needs_held_out(options.suites, has_reference=reference is not None)
    material = material_of(subject, held_out_of(subject, held_out) if is_needed else [], options)
    found = judge(subject, material, options, reference)
    answer(arguments, found.tree(), judgement_lines(found))


def _evaluate(arguments: argparse.Namespace) -> None:
    import dataclasses
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
        print_json({"checkpoint": str(folder), "step": reader.manifest.step, **dataclasses.asdict(found)})
        return
    print(f"{folder}, step {reader.manifest.step}")
    head = f"{'source or set':<20} {'loss (nats/token)':>18} {'bits/byte':>10} {'perplexity':>12}"
    print(f"{head} {'tokens':>12} {'bytes':>12}")
    for one in found.sources:
        numbers = f"{one.loss:>18.4f} {one.bits_per_byte:>10.4f} {one.perplexity:>12.4g}"
        print(f"{one.name:<20} {numbers} {one.tokens:>12,} {one.text_bytes:>12,}")
    print(f"{'mixture':<20} {found.loss:>18.4f} {found.bits_per_byte:>10.4f} {perplexity(found.loss):>12.4g}")
    print("bits/byte = loss x tokens / ln 2 / UTF-8 bytes of the predicted tokens; mixture: weighted as in training")
