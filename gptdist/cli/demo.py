"""``gptdist demo``: the whole way on this machine, with the commands a user would type.

Documents in; training on two data-parallel ranks, killed in the middle; resumed tensor-parallel, where a rank is killed
and the run restarts itself; evaluated, exported, loaded by transformers.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from gptdist.errors import GptDistError, TrainingError

DATA = Path("data/demo")
RUN = Path("runs/demo-cpu")
EXPORT = Path("export/demo-cpu")
PROMPT = "    def __init__(self"
TRANSFORMERS_SCRIPT = """\
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
folder, prompt = sys.argv[1:]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
set_seed(1)
tokens = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=80, do_sample=True, top_k=8)
print(tokenizer.decode(tokens[0]))
"""
KILL_TIMEOUT_SECONDS = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.epilog = f"Writes {DATA}, {RUN} and {EXPORT} below the working folder; the last two are removed first."
    parser.add_argument("--prep", nargs="*", default=[], metavar="key=value", help="changes of the data config")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the run config")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    begin = time.perf_counter()
    for folder in (RUN, EXPORT):
        shutil.rmtree(folder, ignore_errors=True)
    launch = ["launch", "local", "configs/runs/demo-cpu.yaml", *arguments.overrides]
    _title("1. Documents into token shards")
    _gptdist("prep", "run", "configs/data/demo.yaml", *arguments.prep)
    _gptdist("prep", "report", str(DATA))
    _title("2. Train on two ranks, data parallel with ZeRO-1; kill -9 after a checkpoint")
    _train_until_killed(launch)
    _title("3. The same command, now tensor parallel: resumes from the checkpoint; kill -9 of one rank")
    _train_with_a_killed_rank([*launch, "parallel.tensor_parallel_size=2"])
    _gptdist("audit", str(RUN))
    _gptdist("plan", "--from", str(RUN))
    _gptdist("report", str(RUN))
    _title("4. Evaluate, export, check")
    evaluation = json.loads(_gptdist("evaluate", str(RUN), "--json", capture=True))
    _gptdist("export", str(RUN), "--to", "hf", "--output", str(EXPORT))
    _gptdist("bundle", "verify", str(EXPORT))
    _title("5. Plain transformers loads the folder and continues a prompt")
    print(_run([sys.executable, "-W", "ignore", "-c", TRANSFORMERS_SCRIPT, str(EXPORT), PROMPT], capture=True))
    _summary(evaluation, time.perf_counter() - begin)


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _gptdist(*words: str, capture: bool = False) -> str:
    """Run a ``gptdist`` command, after showing it; return its output where it is captured."""
    print(f"$ gptdist {shlex.join(words)}", flush=True)
    return _run([sys.executable, "-m", "gptdist.cli.main", *words], capture=capture)


def _run(argv: Sequence[str], *, capture: bool) -> str:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}  # everything is on this machine
    done = subprocess.run(argv, stdout=subprocess.PIPE if capture else None, text=True, env=offline, check=False)
    if done.returncode:
        raise TrainingError(f"demo: a step ended with exit status {done.returncode}; its message is above")
    return done.stdout or ""


def _train_until_killed(launch: list[str]) -> None:
    """Start training, and kill every process of it with SIGKILL once it has gone on past its first checkpoint."""
    import psutil

    process, step = _train_past_a_checkpoint(launch, attempt=1)
    # Ranks are children of torchrun in sessions of their own: each is killed by its number, as a power cut would.
    for victim in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        victim.kill()
    process.wait()
    saved = ", ".join(folder.name for folder in (RUN / "checkpoints").glob("step_*"))
    print(f"\n>>> kill -9 of all processes after step {step}; checkpoints: {saved}", flush=True)


def _train_with_a_killed_rank(launch: list[str]) -> None:
    """Train to the end, and kill one rank on the way: the launch starts both anew by itself."""
    import psutil

    process, step = _train_past_a_checkpoint(launch, attempt=2)
    (torchrun,) = psutil.Process(process.pid).children()
    victim = torchrun.children()[-1]
    print(f"\n>>> kill -9 of one rank, process {victim.pid}, after step {step}", flush=True)
    victim.kill()
    if process.wait():
        raise TrainingError(f"demo: training ended with exit status {process.returncode}; its message is above")


def _train_past_a_checkpoint(launch: list[str], *, attempt: int) -> tuple["subprocess.Popen[bytes]", int]:
    """Start training; return its process, once ``attempt`` has gone on past the newest checkpoint, and its step."""
    from gptdist.checkpoint.find import step_folders, step_of
    from gptdist.telemetry.ledger import read_json_lines

    print(f"$ gptdist {shlex.join(launch)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "gptdist.cli.main", *launch])
    deadline = time.monotonic() + KILL_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise TrainingError(f"demo: training ended with exit status {process.returncode} before it was killed")
        saved = step_folders(RUN / "checkpoints")
        records = [record for record in read_json_lines(RUN / "metrics.jsonl") if record["attempt"] >= attempt]
        done = max((record["step"] for record in records), default=0)
        if saved and done > step_of(saved[0]):
            return process, done
        time.sleep(0.02)
    process.kill()
    raise TrainingError(f"demo: no checkpoint within {KILL_TIMEOUT_SECONDS} s; its messages are above")


def _summary(evaluation: dict[str, Any], seconds: float) -> None:
    from gptdist.data.manifest import DatasetManifest
    from gptdist.telemetry.ledger import read_json_lines

    records = [record for record in read_json_lines(RUN / "metrics.jsonl") if record["kind"] == "train"]
    first = [record for record in records if record["attempt"] == 1]
    second = [record for record in records if record["attempt"] > 1]
    if not first or not second:
        raise GptDistError(f"{RUN}: no metrics of both attempts; run the demo again")
    manifests = [DatasetManifest.read(DATA / name) for name in ("python", "documents")]
    splits = [split for manifest in manifests for split in manifest.splits.values()]
    parity = json.loads((EXPORT / "export.json").read_text())["parity"]
    speeds = [record["tokens_per_second"] for record in records]
    rows = {
        "documents prepared": f"{sum(split.documents for split in splits):,}",
        "tokens prepared": f"{sum(split.tokens for split in splits):,}",
        f"loss at the start (step {first[0]['step']})": f"{first[0]['loss']:.4f} nats/token",
        f"loss at the kill (step {first[-1]['step']})": f"{first[-1]['loss']:.4f} nats/token",
        f"loss after the resume (step {second[0]['step']})": f"{second[0]['loss']:.4f} nats/token",
        f"loss at the end (step {second[-1]['step']})": f"{second[-1]['loss']:.4f} nats/token",
        "validation": f"{evaluation['bits_per_byte']:.4f} bits/byte ({evaluation['loss']:.4f} nats/token)",
        "training speed (median)": f"{median(speeds):,.0f} tokens/s",
        "export: largest logit difference": f"{parity['max_abs_difference']:.1e} of {parity['max_abs_logit']:.1f}",
        "everything took": f"{seconds:.0f} s",
    }
    width = max(map(len, rows))
    print("\n== Summary")
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
