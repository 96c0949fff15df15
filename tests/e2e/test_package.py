"""Wheel and source archive: what is in them, and a run of the installed wheel where there is no checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from email import message_from_string
from pathlib import Path

import pytest

from gptdist.config.shipped import shipped_names
from gptdist.version import VERSION
from tests.e2e.conftest import SMALL_RUN
from tests.support.ranks import repository

PACKAGES = ("data_prep", "gptdist", "launch")
FOLDERS = (*PACKAGES, "configs", "tests", "benchmarks", "docs", ".ci", ".github")
FILES = (
    "*.md",
    "*.cff",
    "*.toml",
    "*.yml",
    "*.in",
    "*.py",
    "*.txt",
    ".gitignore",
    ".pre-commit*",
    "LICENSE",
    "Makefile",
)
SOURCES = (
    "sources=[{name: python, kind: files, paths: ['{stdlib}'], include: ['**/*.py'], max_bytes: 300_000, "
    "max_file_bytes: 30_000, weight: 0.6}, {name: documents, kind: files, paths: ['{stdlib}'], "
    "include: ['email/**/*.py', '**/*.txt'], max_bytes: 200_000, weight: 0.4}]"
)
DATA = ["tokenizer.vocab_size=512", "tokenizer.train_bytes=200_000", "validation_fraction=0.2", SOURCES]
RUN = [*SMALL_RUN, "training.train_steps=10", "schedule.warmup_steps=2", "intervals.save_steps=10"]
WITNESS = """\
import atexit, os, sys

PACKAGES = ("data_prep", "gptdist", "launch", "__main__")

def tell():
    found = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    with open(os.environ["WITNESS"], "a") as file:
        file.writelines(f"{path}\\n" for name, path in found.items() if path and name.split(".")[0] in PACKAGES)

atexit.register(tell)
"""
"""In every process of the installed command: writes down where our modules came from."""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return a copy of the repository's files, and the wheel and the source archive that were built of it.

    Like ``make dist``, which builds the wheel from the source archive. A build writes beside what it reads: a copy.
    """
    folder = tmp_path_factory.mktemp("package")
    copy, built = folder / "copy", folder / "dist"
    copy.mkdir()
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info", "work")
        shutil.copytree(repository() / name, copy / name, ignore=ignored)
    for path in (path for pattern in FILES for path in repository().glob(pattern)):
        shutil.copy2(path, copy)
    before = _files(copy)
    (copy / "benchmarks" / "work").mkdir()  # what benchmarks download there is no part of the source
    (copy / "benchmarks" / "work" / "peers.txt").write_text("gigabytes")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for added in _files(copy) - before:
        (copy / added).unlink()
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    return copy, wheel, source


@pytest.fixture(scope="module")
def installed(archives: tuple[Path, Path, Path]) -> Path:
    """Return an environment that has the wheel, and beside it only the libraries of the one that runs the tests."""
    _, wheel, _ = archives
    environment = wheel.parents[1] / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    command += ["--no-deps", "--no-index", "--no-compile", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=_environment({}))
    assert done.returncode == 0, done.stderr
    (packages,) = environment.glob("lib/python*/site-packages")
    # Files named .pth there are not read: no path of a checkout comes with the libraries.
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport witness\n")
    (packages / "witness.py").write_text(WITNESS)
    return environment


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", **more}


def test_the_wheel_holds_packages_and_configs_and_nothing_else(archives: tuple[Path, Path, Path]) -> None:
    copy, wheel, _ = archives
    wanted = {f"{name}/{file}" for name in PACKAGES for file in _files(copy / name)}
    wanted |= {f"gptdist/shipped/{file}" for file in _files(copy / "configs")}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = message_from_string(archive.read(f"gptdist-{VERSION}.dist-info/METADATA").decode())
        assert archive.read(f"gptdist-{VERSION}.dist-info/licenses/LICENSE") == (copy / "LICENSE").read_bytes()
    assert held == wanted
    assert {f"{name}/py.typed" for name in PACKAGES} <= held
    assert (metadata["Name"], metadata["Version"]) == ("gptdist", VERSION)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert (copy / "README.md").read_text() in metadata.get_payload()


def test_the_source_archive_holds_the_repository(archives: tuple[Path, Path, Path]) -> None:
    copy, _, source = archives
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {name for name in held if name.startswith("gptdist.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert held - made == _files(copy)


def test_the_installed_wheel_trains_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    witness, folder = tmp_path / "witness.txt", tmp_path / "folder"
    folder.mkdir()

    def gptdist(*words: str) -> str:
        command, environment = [str(installed / "bin" / "gptdist"), *words], _environment({"WITNESS": str(witness)})
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    assert gptdist("--version") == f"gptdist {VERSION}\n"
    assert gptdist("config", "--list").splitlines() == shipped_names()
    assert "hidden_size: 128" in gptdist("config", "configs/runs/demo-cpu.yaml")
    assert "h100-80gb" in gptdist("plan", "configs/models/gpt3-125m.yaml", "--device", "h100-80gb")
    gptdist("prep", "run", "configs/data/demo.yaml", *DATA)
    assert "step 10 | loss " in gptdist("launch", "local", "configs/runs/demo-cpu.yaml", *RUN)
    assert list(folder.glob("runs/demo-cpu/checkpoints/step_00000010/*"))
    files = set(witness.read_text().splitlines())
    (packages,) = installed.glob("lib/python*/site-packages")
    for module in ("gptdist/train/__main__.py", "data_prep/pipeline.py", "launch/torchrun.py"):
        assert str(packages / module) in files, "every kind of process has told"
    assert not [file for file in files if not file.startswith(str(installed))]
