"""What memory is left where a container has a limit of its own."""

from pathlib import Path

import psutil

from gptdist.device.host_memory import available_bytes

MIB = 2**20


def _group(folder: Path, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n")


def test_the_tightest_group_decides_and_cached_files_count_as_free(tmp_path: Path) -> None:
    own, groups = tmp_path / "cgroup", tmp_path / "groups"
    own.write_text("1:name=old:/elsewhere\n0::/job/step\n")
    _group(groups / "job" / "step", "max", 3 * MIB, MIB)
    _group(groups / "job", str(64 * MIB), 50 * MIB, 6 * MIB)
    assert available_bytes(own, groups) == 20 * MIB
    _group(groups / "job" / "step", str(8 * MIB), 9 * MIB, 0)
    assert available_bytes(own, groups) == 0, "over its limit"


def test_without_groups_it_is_the_machines(tmp_path: Path) -> None:
    found = available_bytes(tmp_path / "none", tmp_path)
    assert 0 < found <= psutil.virtual_memory().total
