"""What offload to files needs of a machine is found before ranks start, without torch."""

import logging
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gptdist.config.memory import MemoryConfig
from gptdist.device import swapping
from gptdist.device.swapping import swap_problems
from gptdist.errors import TrainingError
from tests.support.ranks import repository


def _memory(path: Path) -> MemoryConfig:
    return MemoryConfig(offload_optimizer="nvme", nvme_path=path)


def test_a_folder_that_is_not_there_or_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swapping, "_library_problems", list)
    assert swap_problems(_memory(tmp_path / "none")) == [
        f"memory.nvme_path: {tmp_path / 'none'} is no folder; make it, on a local disk of each machine"
    ]
    (problem,) = swap_problems(_memory(Path("/proc")))
    assert problem.startswith("memory.nvme_path: /proc cannot be written to past the page cache (")
    assert problem.endswith("); name a folder of yours on a local disk")
    assert swap_problems(_memory(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
    assert swap_problems(MemoryConfig()) == []


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("false", "memory.nvme_path: swapping needs libaio and its header, which do not link here; install them (apt"),
        (
            "no-such-compiler",
            "memory.nvme_path: swapping needs a C++ compiler to build DeepSpeed's async_io; ",
        ),
    ],
)
def test_a_machine_that_cannot_compile_it(
    compiler: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler)
    (problem,) = swap_problems(_memory(tmp_path))
    assert problem.startswith(said)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_a_library_without_its_header_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libaio.h").write_text("#error no header here\n")
    monkeypatch.setenv("CFLAGS", f"-I{tmp_path}")
    (problem,) = swap_problems(_memory(tmp_path))
    assert "install them (apt install libaio-dev, dnf install libaio-devel), or offload to cpu" in problem


def test_it_is_asked_without_torch() -> None:
    program = "import sys, gptdist.device.swapping; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=repository(), check=False).returncode == 0


def test_a_lock_that_stays_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(swapping, "PATIENCE_SECONDS", 0.0)
    lock = tmp_path / "lock"
    lock.touch()
    threading.Timer(0.5, lock.unlink).start()
    with caplog.at_level(logging.WARNING):
        swapping._await_unlocked(lock)
    assert [record.getMessage() for record in caplog.records] == [
        f"waiting: {lock} says that another job compiles; if none does, it was killed, remove it"
    ]


def test_more_locked_memory_than_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(swapping, "_may_lock_all", lambda: False)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4096, 4096))
    swapping.check_locked_memory(4096)
    with pytest.raises(TrainingError, match="needs 4097 bytes of locked memory on this rank, the limit is 4096; "):
        swapping.check_locked_memory(4097)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    swapping.check_locked_memory(1 << 50)


@pytest.mark.parametrize(("effective", "may"), [("000001ffffffffff", True), ("0000000000000000", False)])
def test_who_may_lock_all(effective: str, may: bool, tmp_path: Path) -> None:
    (tmp_path / "status").write_text(f"Name:\tpython\nCapEff:\t{effective}\n")
    assert swapping._may_lock_all(tmp_path / "status") is may
    assert not swapping._may_lock_all(tmp_path / "none")
