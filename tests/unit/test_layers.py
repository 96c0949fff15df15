"""Imports run down the layers only; what must work without torch does not import it."""

import ast
import itertools
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.ranks import repository

LAYERS = [
    {"errors", "version"},
    {"durable", "local_server"},
    {"config"},
    {"device"},
    {"mesh", "telemetry", "tokenizer"},
    {"data"},
    {"model"},
    {"checkpoint", "plan"},
    {"train", "report"},
    {"launch", "data_prep", "compress", "triage"},
    {"cli"},
]
"""Bottom first; a room imports from its own or a lower layer."""

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
PACKAGES = ("gptdist", "data_prep", "launch")


def _room(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return None
    return parts[0] if parts[0] != "gptdist" else parts[1] if len(parts) > 1 else None


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
    return found


def _files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((repository() / package).rglob("*.py"))]


def wrong_imports(importer: str, imported: list[str]) -> list[str]:
    room = _room(importer)
    rooms = [other for other in map(_room, imported) if other is not None and other != room]
    return [
        f"{importer}: {room} imports {other}, which is above it"
        for other in rooms
        if room is not None and (LEVEL[other] > LEVEL[room] or (LEVEL[other] == LEVEL[room] and room != "cli"))
    ]


def test_imports_point_down() -> None:
    wrong = []
    for path in _files():
        module = ".".join(path.relative_to(repository()).with_suffix("").parts)
        wrong += wrong_imports(module, _imports(path))
    assert not wrong, "\n".join(wrong)


def test_the_layer_check_can_fail() -> None:
    assert wrong_imports("gptdist.config.run", ["gptdist.train.loop"])
    assert wrong_imports("gptdist.mesh.layout", ["gptdist.telemetry.metrics"])
    assert not wrong_imports("gptdist.train.loop", ["gptdist.config.run", "torch"])


def test_the_drawing_shows_these_layers() -> None:
    svg = "{http://www.w3.org/2000/svg}"
    drawing = ElementTree.parse(repository() / "docs" / "images" / "layers.svg")
    layers = [group for group in drawing.iter(f"{svg}g") if group.get("class") == "layer"]
    heights = [{float(box.get("y", 0)) for box in layer.iter(f"{svg}rect")} for layer in layers]
    assert all(max(above) < min(below) for above, below in itertools.pairwise(heights))
    shown = [{text.text for text in layer.iter(f"{svg}text") if text.get("class") == "room"} for layer in layers]
    assert shown == LAYERS[::-1]
    arrows = [path for path in drawing.iter(f"{svg}path") if path.get("class") == "arrow"]
    assert len(arrows) == len(LAYERS) - 1


def test_init_files_hold_a_docstring_and_no_logic() -> None:
    for path in _files():
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, f"{path}: more than a docstring"
            assert isinstance(body[0], ast.Expr), f"{path}: no docstring"


def test_sizes_stay_readable() -> None:
    too_long = []
    for path in _files():
        text = path.read_text()
        if text.count("\n") > 400:
            too_long.append(f"{path}: {text.count(chr(10))} lines, 400 at most")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                too_long.append(f"{path}:{node.lineno} {node.name}: 60 lines at most")
    assert not too_long, "\n".join(too_long)


@pytest.mark.parametrize(
    "module",
    [
        "data_prep.executors.choose",
        "data_prep.pipeline",
        "gptdist.checkpoint.audit_report",
        "gptdist.checkpoint.find",
        "gptdist.checkpoint.initial",
        "gptdist.checkpoint.show",
        "gptdist.cli.rehearse_phases",
        "gptdist.compress.judge.metrics",
        "gptdist.compress.judge.page",
        "gptdist.compress.quantize.options",
        "gptdist.compress.rate.report",
        "gptdist.compress.rate.server",
        "gptdist.config.load",
        "gptdist.config.run",
        "gptdist.data.adopt",
        "gptdist.data.attempts",
        "gptdist.data.plan",
        "gptdist.data.sources",
        "gptdist.data.trace",
        "gptdist.mesh.layout",
        "gptdist.model.arithmetic",
        "gptdist.model.memory",
        "gptdist.plan.scaling",
        "gptdist.report.gather",
        "gptdist.report.page",
        "gptdist.report.watch",
        "gptdist.telemetry.ledger",
        "gptdist.triage.page",
        "gptdist.triage.rewind",
        "launch.hostfile",
        "launch.k8s",
        "launch.hostfile_job",
        "launch.local",
        "launch.nodes",
        "launch.mpi",
        "launch.slurm_job",
        "launch.preflight.check",
        "launch.preflight.probe",
    ],
)
def test_works_without_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import {module}; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository())
