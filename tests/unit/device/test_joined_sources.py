"""Sources of an extension in one file: a header without a guard stands once, and what is there is not written anew."""

import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gptdist.device.joined_sources import TESTED_DEEPSPEED, join, joined_sources


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Two sources that include one header, which includes another; and one that is left as it is."""
    lib, common = tmp_path / "csrc" / "py_lib", tmp_path / "csrc" / "common"
    lib.mkdir(parents=True)
    common.mkdir()
    (common / "inner.h").write_text("struct Inner { int value; };\n")
    (lib / "outer.h").write_text("#include <inner.h>\nstruct Outer { Inner inner; };\n")
    (lib / "one.cpp").write_text(
        '#include "outer.h"\n#include <vector>\nint one() { return Outer{{1}}.inner.value; }\n'
    )
    (lib / "two.cpp").write_text('#include "outer.h"\n#include <inner.h>\nint two() { return Inner{2}.value; }\n')
    (common / "three.cpp").write_text("int three() { return 3; }\n")
    return [str(path) for path in (lib / "one.cpp", common / "three.cpp", lib / "two.cpp")]


def test_a_folders_sources_are_one_that_compiles(sources: list[str], tmp_path: Path) -> None:
    headers = [tmp_path / "csrc" / "py_lib", tmp_path / "csrc" / "common"]
    found = join(sources, headers, tmp_path)
    assert found == [sources[1], str(tmp_path / "all_of_py_lib.cpp")]
    text = Path(found[1]).read_text()
    assert (text.count("struct Inner"), text.count("struct Outer"), text.count("#include")) == (1, 1, 1)
    if compiler := shutil.which("c++"):
        subprocess.run([compiler, "-Wall", "-Werror", "-c", found[1], "-o", tmp_path / "all.o"], check=True)
    written = Path(found[1]).stat().st_mtime_ns
    assert join(sources, headers, tmp_path) == found
    assert Path(found[1]).stat().st_mtime_ns == written, "else it would be compiled again"
    Path(sources[2]).write_text("int two() { return 4; }\n")
    join(sources, headers, tmp_path)
    assert "return 4" in Path(found[1]).read_text()


def test_an_error_is_told_where_it_is(sources: list[str], tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    Path(sources[2]).write_text('#include "outer.h"\n\nint two() { return nothing; }\n')
    _, joined = join(sources, [tmp_path / "csrc" / "py_lib", tmp_path / "csrc" / "common"], tmp_path)
    done = subprocess.run([compiler, "-c", joined, "-o", tmp_path / "o"], capture_output=True, text=True, check=False)
    assert f"{sources[2]}:3:" in done.stderr


@pytest.mark.parametrize(("version", "is_joined"), [(f"{TESTED_DEEPSPEED}8", True), ("0.20.0", False)])
def test_only_versions_that_were_tried(version: str, is_joined: bool) -> None:
    from torch.utils import cpp_extension

    plain = cpp_extension.load
    with joined_sources(version):
        assert (cpp_extension.load is not plain) is is_joined
    assert cpp_extension.load is plain


def test_ranks_that_come_at_once_write_it_once(
    sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils import cpp_extension

    written: list[Path] = []

    def slow(path: Path, content: bytes) -> None:
        written.append(path)
        time.sleep(0.2)
        path.write_bytes(content)

    monkeypatch.setattr("gptdist.device.joined_sources.write_whole", slow)
    monkeypatch.setattr(cpp_extension, "_get_build_directory", lambda name, verbose: str(tmp_path))
    monkeypatch.setattr(cpp_extension, "load", lambda name, sources, **_: sources)
    headers = [str(tmp_path / "csrc" / "py_lib"), str(tmp_path / "csrc" / "common")]
    with joined_sources(TESTED_DEEPSPEED), ThreadPoolExecutor(4) as ranks:
        loads = [
            ranks.submit(cpp_extension.load, "all", sources=sources, extra_include_paths=headers, extra_cflags=["-g"])
            for _ in range(4)
        ]
        assert len({tuple(one.result()) for one in loads}) == 1
    assert len(written) == 1
