"""kill -9 of ranks at random instants, a hundred times: the run that comes of it is the uninterrupted one."""

import random
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptdist.checkpoint.audit import audit
from gptdist.checkpoint.find import step_folders
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.checkpoint.verify import verify
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import GPT2, run_tree
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks, started_ranks
from tests.support.s3_server import BUCKET, S3Server

KILLS = 26
"""Of each layout."""

STEPS = 60
LONGEST_SHARE = 0.4
"""Of the time that a whole run takes here: after so long at the latest a rank dies, unless its run is done by then."""

PATIENCE_SECONDS = 120.0
"""How long a run may take that is left alone."""

SURVIVOR_SECONDS = 5.0
"""How long the other rank may take to notice; torchrun would end it, too."""

LAYOUTS = [
    TestedLayout(2, 1, 1),
    TestedLayout(2, 3, 1),
    TestedLayout(2, 2, 2),
    TestedLayout(2, 1, 1, pipeline_parallel_size=2),
]


def train_as_command(environment: dict[str, str], config: str) -> int:
    """Be one rank of ``gptdist launch``."""
    import os

    from gptdist.train.__main__ import main

    os.environ.update(environment)
    return main([config])


@pytest.fixture(scope="module")
def server():
    server = S3Server()
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
    server.kill()


def _config(folder: Path, name: str, layout: TestedLayout) -> Path:
    """Saves every third step, deletes after each save, and uploads to a store of its own."""
    keep = {"last": 2}
    tree = run_tree(
        folder,
        name=name,
        run_dir=str(folder / name),
        model=GPT2 | {"hidden_dropout": 0.1, "attention_dropout": 0.1},
        training={"train_steps": STEPS},
        intervals={"log_steps": 1, "save_steps": 3, "eval_steps": 12},
        batch={"global_batch_size": 8, "micro_batch_size": 4},
        checkpoints={
            "keep": keep,
            "remote": {"url": f"s3://{BUCKET}/chaos/{layout}", "keep": keep, "retry_seconds": 0.1},
        },
        **layout.sections(),
    )
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _ended(pipes: list[Connection], seconds: float) -> list[tuple[str, Any]] | None:
    """Return what every rank said at its end, or None if one goes on after ``seconds``."""
    deadline, said, left = time.monotonic() + seconds, [], set(pipes)
    while left:
        ready = wait(list(left), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        for pipe in ready:
            try:
                said.append(pipe.recv()[1:])
            except EOFError:
                said.append(("died without a word", None))
            left.discard(pipe)
    return said


def _attempt(server: S3Server, config: Path, layout: TestedLayout, chance: random.Random, seconds: float) -> bool:
    """Start the run's ranks, kill one or all of them after ``seconds``; return whether the run was done first."""
    with started_ranks(layout.world_size, train_as_command, server.environment, str(config)) as (ranks, pipes):
        said = _ended(pipes, seconds)
        if said is not None:
            assert said == [("", 0)] * layout.world_size
            return True
        for rank in chance.choice([ranks, [chance.choice(ranks)]]):
            rank.kill()
        if _ended(pipes, SURVIVOR_SECONDS) is None:
            for rank in ranks:
                rank.kill()
    return False


def _losses(folder: Path) -> dict[int, set[float]]:
    """Return every loss that any attempt recorded of each step."""
    found: dict[int, set[float]] = {}
    for record in read_json_lines(folder / "metrics.jsonl"):
        if record["kind"] == "train":
            found.setdefault(record["step"], set()).add(record["loss"])
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_hundred_kills_change_nothing(server: S3Server, tmp_path: Path, layout: TestedLayout) -> None:
    chance, kills, runs = random.Random(str(layout)), 0, 0
    run_ranks(1, time.monotonic)  # the server of processes starts outside of what is timed
    whole, begin = _config(tmp_path, "whole", layout), time.monotonic()
    with started_ranks(layout.world_size, train_as_command, server.environment, str(whole)) as (_, pipes):
        assert _ended(pipes, PATIENCE_SECONDS) == [("", 0)] * layout.world_size
    longest = LONGEST_SHARE * (time.monotonic() - begin)
    expected = _losses(tmp_path / "whole")
    assert [len(losses) for losses in expected.values()] == [1] * STEPS
    while kills < KILLS:
        runs += 1
        config = _config(tmp_path, f"run-{runs}", layout)
        # After the last kill it is left alone, or a slow start would make it thousands.
        while not _attempt(
            server, config, layout, chance, chance.uniform(0.0, longest) if kills < KILLS else PATIENCE_SECONDS
        ):
            assert kills < KILLS, f"not done within {PATIENCE_SECONDS:g} s"
            kills += 1
        folder = tmp_path / f"run-{runs}"
        assert _losses(folder) == expected, "of every attempt, bit for bit"
        found = audit(folder)
        assert not found.problems
        assert found.consumed_samples == 8 * STEPS
        kept = step_folders(folder / "checkpoints")
        assert [one.name for one in kept] == [f"step_{STEPS:08d}", f"step_{STEPS - 3:08d}"]
        assert not any(verify(one) for one in kept)
        assert {one.name for one in (folder / "checkpoints").iterdir()} == {"latest", *(one.name for one in kept)}
        store = RemoteStore(f"s3://{BUCKET}/chaos/{layout}", f"run-{runs}")
        assert (store.latest(), store.step_names()[0]) == (kept[0].name, kept[0].name)
        assert len(store.step_names()) <= 2
