"""Killed at random instants, with a disk that fills, on damaged input: nothing is lost, skipped in silence, or torn."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.support.prep_runs import results, run_prep, start_prep, web_config, write_config
from tests.support.web_corpus import Corpus, write_web_corpus

KILLS = 10
_LONGEST_SECONDS = 4.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_web_corpus(tmp_path_factory.mktemp("web") / "c", pages=240, seed=4, formats=("warc", "jsonl"))


@pytest.fixture(scope="module")
def undisturbed(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    done = run_prep(write_config(folder / "c.yaml", web_config(corpus, folder / "out")), "--workers", "2")
    assert done.returncode == 0, done.stderr
    return results(folder / "out")


def test_killed_at_random_instants(corpus: Corpus, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """Every second time all processes die, every other time one worker, which the run must survive by itself."""
    choose = random.Random(7)
    config = write_config(tmp_path / "c.yaml", web_config(corpus, tmp_path / "out"))
    killed = 0
    for attempt in range(KILLS):
        run = start_prep(config, "--workers", "2")
        time.sleep(choose.uniform(0.3, _LONGEST_SECONDS))
        everything = attempt % 2 == 0
        victims = _worker_processes(run.pid)
        if run.poll() is None and everything:
            os.killpg(run.pid, signal.SIGKILL)
            killed += 1
        elif run.poll() is None and victims:
            choose.choice(victims).kill()
            killed += 1
        _, said = run.communicate(timeout=120)
        if not everything:
            assert run.returncode == 0, said
        if (tmp_path / "out/account").exists() and attempt % 2:
            assert results(tmp_path / "out") == undisturbed
            _make_undone(tmp_path / "out")
    assert killed >= KILLS // 2
    assert run_prep(config, "--workers", "2").returncode == 0
    assert results(tmp_path / "out") == undisturbed


def _worker_processes(pid: int) -> list[psutil.Process]:
    """Return the processes that do tasks: they are forked by a server, so they are grandchildren."""
    try:
        below = psutil.Process(pid).children(recursive=True)
        return [process for process in below if process.ppid() != pid]
    except psutil.Error:
        return []


def _make_undone(output_dir: Path) -> None:
    """Let the next run begin from nothing."""
    (output_dir / "account/run.json").unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_fills(corpus: Corpus, undisturbed: dict[str, str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        config = write_config(tmp_path / "c.yaml", web_config(corpus, disk / "out"))
        full = run_prep(config, "--workers", "2")
        assert full.returncode == 2, full.stderr
        assert "No space left on device" in full.stderr
        assert len(full.stderr.splitlines()) <= 20
        assert not (disk / "out/warc").exists()
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        done = run_prep(config, "--workers", "2")
        assert done.returncode == 0, done.stderr
        assert results(disk / "out") == undisturbed
    finally:
        subprocess.run(["umount", str(disk)], check=True)
