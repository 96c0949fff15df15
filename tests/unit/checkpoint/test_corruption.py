"""Whatever happens to the bytes of a checkpoint, it is not loaded: the one before is."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gptdist.checkpoint.find import newest_whole
from gptdist.checkpoint.verify import verify
from tests.support.step_folders import numbered, write_step_folder

FILES = ("manifest.json", "SHA256SUMS", "rank_00000.safetensors", "rank_00001.safetensors")
REGION_BYTES = 16
"""A byte of each such region is flipped in turn."""


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The newer one of two whole checkpoints."""
    for step in (3, 4):
        write_step_folder(
            tmp_path / f"step_{step:08d}", {"x": numbered(1, 6, 4) + step, "y": numbered(2, 4, 3)}, cuts=(5,)
        )
    assert newest_whole(tmp_path) == (tmp_path / "step_00000004", [])
    return tmp_path / "step_00000004"


def _is_passed_over(newer: Path) -> bool:
    found, passed_over = newest_whole(newer.parent)
    return found == newer.parent / "step_00000003" and bool(passed_over)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_in_any_region(newer: Path, name: str) -> None:
    content = (newer / name).read_bytes()
    for place in range(0, len(content), REGION_BYTES):
        for bit in (0, 7):
            damaged = bytearray(content)
            damaged[min(place + place // REGION_BYTES % REGION_BYTES, len(content) - 1)] ^= 1 << bit
            (newer / name).write_bytes(damaged)
            assert verify(newer), f"byte {place}, bit {bit}"
    assert _is_passed_over(newer)
    (newer / name).write_bytes(content)
    assert verify(newer) == [], "nothing but the flips was wrong"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_empty_longer_or_gone(newer: Path, name: str) -> None:
    content = (newer / name).read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", content + b"\0", content + content):
        (newer / name).write_bytes(damaged)
        assert _is_passed_over(newer), f"{len(damaged)} of {len(content)} bytes"
    (newer / name).unlink()
    assert _is_passed_over(newer), "gone"
    (newer / name).mkdir()
    assert _is_passed_over(newer), "a folder in its place"


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_checkpoint(newer: Path, name: str) -> None:
    shutil.copy(newer.parent / "step_00000003" / name, newer / name)
    assert _is_passed_over(newer)


def test_files_swapped_between_ranks(newer: Path) -> None:
    first, second = newer / FILES[2], newer / FILES[3]
    first.rename(newer / "x")
    second.rename(first)
    (newer / "x").rename(second)
    assert _is_passed_over(newer)


def _edits() -> Iterator[Callable[[dict], None]]:
    yield lambda tree: tree["progress"].update(step=5)
    yield lambda tree: tree["progress"].update(consumed_samples=0)
    yield lambda tree: tree["fragments"].reverse()
    yield lambda tree: tree["fragments"].pop()
    yield lambda tree: tree["fragments"].append(tree["fragments"][0])
    yield lambda tree: tree["tensors"].pop()
    yield lambda tree: tree["files"].pop()
    yield lambda tree: tree["files"][0].update(name="../rank_00000.safetensors")
    yield lambda tree: tree.update(version=2)
    yield lambda tree: tree.update(added=1)
    yield lambda tree: tree.update(tokenizer_fingerprint="1" * 64)
    yield lambda tree: tree["config"]["model"].update(num_layers=9)


def test_an_edited_manifest(newer: Path) -> None:
    content = (newer / "manifest.json").read_text()
    for number, edit in enumerate(_edits()):
        tree = json.loads(content)
        edit(tree)
        (newer / "manifest.json").write_text(json.dumps(tree))
        assert _is_passed_over(newer), f"edit {number}"
    (newer / "manifest.json").write_text(json.dumps(json.loads(content), indent=1))
    assert _is_passed_over(newer), "as much as spaces"
