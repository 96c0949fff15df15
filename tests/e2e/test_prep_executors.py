"""The same config gives the same bytes whoever runs it, with any number of workers; Megatron reads the shards."""

import importlib.util
from pathlib import Path

import pytest

from gptdist.data.verify import verify_dataset
from tests.support.prep_runs import results, run_prep, web_config, write_config
from tests.support.slurm_cluster import missing_programs, slurm_cluster
from tests.support.web_corpus import Corpus, write_web_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_web_corpus(
        tmp_path_factory.mktemp("web") / "c", pages=240, seed=3, formats=("warc", "jsonl", "parquet")
    )


@pytest.fixture(scope="module")
def reference(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one worker, which is the command's own process, makes of it."""
    folder = tmp_path_factory.mktemp("one")
    done = run_prep(write_config(folder / "c.yaml", web_config(corpus, folder / "out")), "--workers", "1")
    assert done.returncode == 0, done.stderr
    for source in ("warc", "lines", "table"):
        assert verify_dataset(folder / "out" / source) == []
    found = results(folder / "out")
    assert len([name for name in found if name.endswith(".bin")]) >= 6
    return found


def test_two_workers_give_the_same_bytes(corpus: Corpus, reference: dict[str, str], tmp_path: Path) -> None:
    done = run_prep(write_config(tmp_path / "c.yaml", web_config(corpus, tmp_path / "out")), "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == reference


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_gives_the_same_bytes(corpus: Corpus, reference: dict[str, str], tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", web_config(corpus, tmp_path / "out"))
    done = run_prep(config, "--executor", "ray", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == reference


@pytest.mark.skipif(bool(missing_programs()), reason=f"Slurm cannot run here: no {', '.join(missing_programs())}")
def test_a_slurm_job_array_gives_the_same_bytes(corpus: Corpus, reference: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    config = write_config(tmp_path / "c.yaml", web_config(corpus, tmp_path / "out"))
    with slurm_cluster(tmp_path / "slurm") as slurm_config:
        environment = {"SLURM_CONF": str(slurm_config)}
        refused = run_prep(config, "--executor", "slurm", "--slurm-option=--partition=none", environment=environment)
        assert refused.returncode == 2
        assert "--executor slurm: sbatch refused the job (sbatch: error:" in refused.stderr
        done = run_prep(config, "--executor", "slurm", "--workers", "2", environment=environment)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == reference
