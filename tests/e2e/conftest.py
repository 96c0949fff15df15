"""One small demo for all end-to-end tests."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ranks import repository

SMALL_DATA = [
    "tokenizer.vocab_size=512",
    "tokenizer.train_bytes=300_000",
    "shard_tokens=60_000",
    "validation_fraction=0.2",
    "sources=[{name: python, kind: files, paths: ['{stdlib}'], include: ['**/*.py'], max_bytes: 600_000, "
    "max_file_bytes: 60_000, weight: 0.6}, {name: documents, kind: files, paths: ['{site-packages}'], "
    "include: ['**/METADATA'], max_bytes: 600_000, weight: 0.4}]",
]
SMALL_RUN = [
    "model.vocab_size=512",
    "model.hidden_size=64",
    "model.num_layers=2",
    "batch.micro_batch_size=4",
    "training.train_steps=60",
    "intervals.log_steps=2",
    "intervals.eval_steps=30",
    "intervals.save_steps=20",
    "data.eval_samples=4",
]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder in which a small demo ran, and what it printed; it runs once for all workers of pytest."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, printed = shared / "demo", shared / "demo.txt"
    with (shared / "demo.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            argv = [sys.executable, "-m", "gptdist.cli.main", "demo", *SMALL_RUN, "--prep", *SMALL_DATA]
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=800, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            printed.write_text(done.stdout)
    return folder, printed.read_text()


@pytest.fixture(scope="session")
def documented(demo: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the demo's folder with the shipped configs, made small.

    The documents' commands run there as written, and change it.
    """
    folder = tmp_path_factory.mktemp("documents") / "folder"
    shutil.copytree(demo[0], folder, copy_function=shutil.copy2)
    configs = folder / "configs"
    shutil.copytree(repository() / "configs", configs)
    for path in (configs / "models").glob("*-1m.yaml"):
        text = path.read_text()
        for old, new in (("num_layers: 4", "num_layers: 2"), ("size: 128", "size: 64"), ("size: 2048", "size: 512")):
            text = text.replace(old, new)
        path.write_text(text)
    run = configs / "runs" / "demo-cpu.yaml"
    text = re.sub(r"train_steps: \d+", "train_steps: 70", run.read_text())
    run.write_text(
        text.replace("sources:", "eval_samples: 4\n  sources:").replace("warmup_steps: 20", "warmup_steps: 5")
    )
    (folder / "benchmarks").mkdir()
    shutil.copy2(repository() / "benchmarks" / "published_runs.csv", folder / "benchmarks")
    data = configs / "data" / "demo.yaml"
    text = re.sub(r"max_bytes: [\d_]+", "max_bytes: 600_000", data.read_text())
    text = re.sub(r"vocab_size: \d+", "vocab_size: 512", text)
    text = text.replace("validation_fraction: 0.05", "validation_fraction: 0.3")
    data.write_text(text.replace("output_dir: data/demo", "output_dir: data/documented"))
    return folder
