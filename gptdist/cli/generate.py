"""``gptdist generate``: continue a prompt."""

import argparse
import sys
from pathlib import Path

from gptdist.cli.model_folder import expect_model
from gptdist.compress.sampling import SamplingOptions
from gptdist.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "model", type=Path, metavar="CHECKPOINT|EXPORTED_DIR", help="run folder, checkpoint folder or exported folder"
    )
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="text to continue; an empty one starts a new document")
    prompt.add_argument("--prompt-file", type=Path, metavar="FILE", help="UTF-8 file that holds the text")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="default: %(default)s")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="below 1 is safer (default: 1)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="choose among K tokens (default: 0, all)")
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="choose among this probability (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=1234, help="sample i uses SEED + i (default: %(default)s)")
    parser.add_argument("--greedy", action="store_true", help="always take the likeliest token")
    parser.add_argument("--num-samples", type=int, default=1, metavar="N", help="continuations (default: 1)")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="tokenizer of a checkpoint (default: the run's)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the values, load the model, and print the prompt with each continuation."""
    text = _prompt_text(arguments)
    options = SamplingOptions(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        is_greedy=arguments.greedy,
        num_samples=arguments.num_samples,
    )
    if problems := options.problems():
        raise ConfigError(problems)
    expect_model(arguments.model)
    # not before: importing torch and transformers takes seconds, and the values can be refused without them
    from gptdist.compress.generate import continue_prompt, open_text_model, read_prompt

    text_model = open_text_model(arguments.model, arguments.tokenizer)
    prompt = read_prompt(text_model, text)
    if prompt.room < options.max_new_tokens:
        limit, used = text_model.seq_length, len(prompt.ids)
        print(
            f"gptdist generate: note: the model knows {limit} positions and the prompt takes {used}; "
            f"stopping after {prompt.room} new tokens instead of {options.max_new_tokens}",
            file=sys.stderr,
        )
    for sample in range(options.num_samples):
        if options.num_samples > 1:
            print(f"--- sample {sample + 1} of {options.num_samples}, seed {options.seed + sample} ---")
        _write(text)
        continue_prompt(text_model, prompt, options, sample=sample, write=_write)
        print()
    return 0


def _prompt_text(arguments: argparse.Namespace) -> str:
    """The prompt, from the command line or a file.

    Raises:
        ConfigError: the file cannot be read, or either is not UTF-8.
    """
    if arguments.prompt_file is not None:
        return _read(arguments.prompt_file)
    text: str = arguments.prompt
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError([f"--prompt: not UTF-8 at character {error.start}; give UTF-8 text"]) from None
    return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}; check the path"]) from None


def _write(text: str) -> None:
    """Print at once on a terminal, where a reader is waiting; characters it cannot show become question marks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding))
    if sys.stdout.isatty():
        sys.stdout.flush()
