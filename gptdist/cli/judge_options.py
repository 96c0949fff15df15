"""Options that ``gptdist evaluate`` and ``gptdist compare`` have in common."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gptdist.compress.judge.metrics import SUITES, parse_suites
from gptdist.compress.sampling import SamplingOptions
from gptdist.errors import ConfigError

if TYPE_CHECKING:
    from gptdist.compress.judge.held_out import HeldOutOptions
    from gptdist.compress.judge.judge import JudgeOptions


def add_judge_arguments(parser: argparse.ArgumentParser, default_suites: str) -> None:
    """Add them to ``parser``."""
    parser.add_argument(
        "--suite",
        metavar="A,B",
        help=f"what to measure, of {', '.join(SUITES)}, all (default: {default_suites})",
    )
    parser.add_argument(
        "--data", type=Path, action="append", default=[], metavar="DIR",
        help="dataset folder whose validation split to judge on (default: the model's own); repeatable",
    )  # fmt: skip
    parser.add_argument("--reference", type=Path, metavar="MODEL", help="measure fidelity to this model")
    texts = parser.add_argument_group("texts and cloze items")
    texts.add_argument("--prompts", type=Path, metavar="FILE", help="a prompt a line; default: a document's beginning")
    texts.add_argument("--num-samples", type=int, default=32, metavar="N", help="texts of a prompt (default: 32)")
    texts.add_argument("--max-new-tokens", type=int, default=96, metavar="N", help="of a text (default: 96)")
    texts.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of the texts (default: 1)")
    texts.add_argument("--seed", type=int, default=1234, help="of texts and items (default: 1234)")
    texts.add_argument(
        "--word-list", type=Path, action="append", default=[], metavar="FILE",
        help="unsuitable words or phrases, one a line, in place of the small English list; repeatable",
    )  # fmt: skip
    texts.add_argument("--cloze-items", type=int, default=200, metavar="N", help="at most (default: 200)")


def judge_options(arguments: argparse.Namespace, default_suites: str) -> "JudgeOptions":
    """Return what the arguments say.

    Raises:
        ConfigError: all values that are out of their range.
    """
    from gptdist.cli.detectors import personal_data, unsuitable_words
    from gptdist.compress.judge.cloze import ClozeOptions
    from gptdist.compress.judge.judge import JudgeOptions, check_prompts

    sampling = SamplingOptions(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
        num_samples=arguments.num_samples,
    )
    bad = sampling.problems()
    suites: tuple[str, ...] = ()
    if arguments.cloze_items < 1:
        bad.append(f"--cloze-items: must be at least 1, got {arguments.cloze_items}")
    prompts: tuple[str, ...] = ("",)
    try:
        suites = parse_suites(arguments.suite or default_suites)
    except ConfigError as error:
        bad += error.problems
    try:
        prompts = check_prompts(arguments.prompts) if arguments.prompts is not None else prompts
    except ConfigError as error:
        bad += error.problems
    if bad:
        raise ConfigError(bad)
    return JudgeOptions(
        suites=suites,
        sampling=sampling,
        prompts=prompts,
        cloze=ClozeOptions(items=arguments.cloze_items, seed=arguments.seed),
        unsuitable=unsuitable_words(arguments.word_list),
        personal=personal_data(),
    )


def held_out_options(arguments: argparse.Namespace) -> "HeldOutOptions":
    """Return what the arguments say.

    Raises:
        ConfigError: all values that are out of their range.
    """
    from gptdist.compress.judge.held_out import DEFAULT_WINDOWS, HeldOutOptions

    windows = DEFAULT_WINDOWS if arguments.eval_samples is None else arguments.eval_samples
    options = HeldOutOptions(tuple(arguments.data), windows)
    if problems := options.problems():
        raise ConfigError(problems)
    return options
