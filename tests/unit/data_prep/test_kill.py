"""A run that is killed at any instant and started again gives what an undisturbed run gives."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gptdist.data.verify import verify_dataset
from tests.unit.data_prep.made_corpus import hashes, make_texts, write_texts

CONFIG = """
name: kill
output_dir: {out}
tokenizer: {{kind: {tokenizer}}}
sources:
  - {{name: a, kind: files, paths: ["{a}"]}}
  - {{name: b, kind: files, paths: ["{b}"]}}
validation_fraction: 0.1
shard_tokens: {shard_tokens}
"""

KILLED_AT = """
import os, pathlib, signal, sys
from gptdist.cli.main import main

moment, name, config = sys.argv[1:]
rename = pathlib.Path.replace

def dying(source, target):
    if moment == "before" and target.name == name:
        os.kill(os.getpid(), signal.SIGKILL)
    done = rename(source, target)
    if target.name == name:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

pathlib.Path.replace = dying
sys.exit(main(["prep", "run", config, "--workers", "1"]))
"""


def write_config(folder: Path, out: str, tokenizer: str, shard_tokens: int = 4000) -> Path:
    sources = {}
    for seed, name in enumerate("ab"):
        sources[name] = folder / name
        if not sources[name].exists():
            write_texts(sources[name], make_texts(60, seed=seed))
    path = folder / f"{out}.yaml"
    path.write_text(CONFIG.format(out=folder / out, tokenizer=tokenizer, shard_tokens=shard_tokens, **sources))
    return path


def prep(config: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "gptdist.cli.main", "prep", "run", str(config), "--workers", "1"],
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    prep(write_config(folder, "whole", "byte"))
    return folder


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        ("before", "plan.json"),
        ("after", "plan.json"),
        ("before", "000000"),
        ("after", "000000"),
        ("before", "tokenizer"),
        ("before", "train-00000.idx"),
        ("before", "a"),
        ("after", "a"),
        ("before", "b"),
        ("after", "a.retired"),
        ("before", "account"),
        ("after", "account"),
    ],
)
def test_killed_at_a_rename(undisturbed: Path, moment: str, name: str) -> None:
    """Renames are the instants at which something becomes visible; between two of them nothing changes for a reader."""
    out = undisturbed / f"{moment}-{name}"
    config = write_config(undisturbed, out.name, "byte")
    if name == "a.retired":  # an older result is in the way
        config.write_text(config.read_text() + "seed: 5")
        prep(config)
        write_config(undisturbed, out.name, "byte")
    command = [sys.executable, "-c", KILLED_AT, moment, name, str(config)]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    for source in "ab":
        if (out / source).exists():
            assert verify_dataset(out / source) == [], "a folder became visible before it was whole"
    prep(config)
    assert hashes(out) == hashes(undisturbed / "whole")
