"""Speed and memory of generation, measured in a process of its own so that nothing else is in its memory.

The process runs ``python -m gptdist.compress.judge.speed``, which prints one line of JSON.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gptdist.compress.hf_model import quiet_transformers
from gptdist.compress.judge.subject import Subject, open_subject
from gptdist.errors import ConfigError, ExportError
from gptdist.telemetry.memory import peak_memory_bytes

_RESET_PEAK = Path("/proc/self/clear_refs")
"""Linux: 5 written here makes the peak begin anew."""


@dataclass(frozen=True)
class SpeedOptions:
    """What is timed."""

    prompt_tokens: int = 128
    """Of the prompt; fewer where the model knows fewer positions."""

    new_tokens: int = 64
    rounds: int = 3
    """Times that each is measured; the median counts."""

    threads: int | None = None
    """Of the processor; none is torch's own choice."""

    def problems(self) -> list[str]:
        """Return every value that is out of its range."""
        values = {"speed-prompt-tokens": self.prompt_tokens, "speed-new-tokens": self.new_tokens}
        return [f"--{name}: must be at least 1, got {value}" for name, value in values.items() if value < 1]


@dataclass(frozen=True)
class Speed:
    """What was measured."""

    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    peak_memory_bytes: int
    """Resident memory of the process while it generates, libraries included; on a GPU that of its tensors."""

    memory_before_load_bytes: int
    """The same before the model was loaded: libraries alone."""

    threads: int


def measure_speed(path: Path, tokenizer: Path | None, options: SpeedOptions) -> Speed:
    """Measure the model at ``path`` in a fresh process.

    Raises:
        ConfigError: an option is out of its range.
        ExportError: the process failed; the text ends with its last line.
    """
    if problems := options.problems():
        raise ConfigError(problems)
    command = [sys.executable, "-m", "gptdist.compress.judge.speed", str(path), json.dumps(asdict(options))]
    command += [] if tokenizer is None else ["--tokenizer", str(tokenizer)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ExportError(f"{path}: its speed could not be measured, status {done.returncode} ({last}); run it alone")
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a model in this process, and print what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--tokenizer", type=Path)
    parsed = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    options = SpeedOptions(**parsed.options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = peak_memory_bytes(where) or 0
    subject = open_subject(parsed.model, parsed.tokenizer)
    print(json.dumps(asdict(_measure(subject, options, before))))  # noqa: T201 - it is what the caller reads


def _measure(subject: Subject, options: SpeedOptions, before: int) -> Speed:
    model, limit = subject.model, subject.text_model.seq_length
    new = max(1, min(options.new_tokens, limit // 2))
    length = max(1, min(options.prompt_tokens, limit - new))
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, subject.texts.vocab_size, (1, length), generator=generator).to(model.device)

    def write() -> None:
        _generate(model, prompt[:, :1], new)

    with torch.inference_mode(), quiet_transformers():
        write()  # first calls allocate and unpack
        _begin_peak(model.device)
        prefill = median(_seconds(lambda: model(prompt), model.device) for _ in range(options.rounds))
        decode = median(_seconds(write, model.device) for _ in range(options.rounds))
    return Speed(
        prefill_tokens_per_second=length / prefill,
        decode_tokens_per_second=new / decode,
        peak_memory_bytes=peak_memory_bytes(model.device) or 0,
        memory_before_load_bytes=before,
        threads=torch.get_num_threads(),
    )


def _generate(model: Any, prompt: torch.Tensor, new: int) -> None:
    """Write exactly ``new`` tokens, greedily, with the key-value cache."""
    model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        min_new_tokens=new,
        max_new_tokens=new,
        pad_token_id=0,
    )


def _begin_peak(device: torch.device) -> None:
    """Forget the peak so far: loading takes more than running."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _RESET_PEAK.exists():
        _RESET_PEAK.write_text("5")


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
