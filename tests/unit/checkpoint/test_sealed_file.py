"""Encrypted files give back any range, and nothing else than what was written."""

import io
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from gptdist.checkpoint.keys import SealingKey
from gptdist.checkpoint.sealed_file import SealedFile, SealedWriter
from gptdist.errors import CheckpointError

KEY = SealingKey(bytes(range(32)))
CHUNK = 1 << 20
CONTENT = bytes(range(251)) * (2 * CHUNK // 251 + 500)
"""Two chunks and a part of a third."""


def _write(path: Path, content: bytes = CONTENT, cuts: tuple[int, ...] = ()) -> Path:
    with path.open("wb") as file:
        writer = SealedWriter(file, KEY, len(content))
        for begin, end in pairwise((0, *cuts, len(content))):
            writer.write(content[begin:end])
        writer.finish()
    return path


def _read(file: SealedFile, start: int, stop: int) -> bytearray:
    content = bytearray(stop - start)
    file.read_into(start, memoryview(content))
    return content


@pytest.mark.parametrize("cuts", [(), (5,), (CHUNK,), (7, CHUNK - 1, CHUNK + 3, 2 * CHUNK)])
def test_content_comes_back_however_it_was_handed_over(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    file = SealedFile(_write(tmp_path / "x", cuts=cuts), KEY)
    assert file.num_bytes == len(CONTENT)
    assert _read(file, 0, len(CONTENT)) == CONTENT


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 0), (0, 1), (CHUNK - 1, CHUNK + 1), (CHUNK, CHUNK), (2 * CHUNK + 5, len(CONTENT)), (3, 9)]
)
def test_any_range_can_be_read(tmp_path: Path, start: int, stop: int) -> None:
    assert _read(SealedFile(_write(tmp_path / "x"), KEY), start, stop) == CONTENT[start:stop]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1])
def test_edges_of_chunks(tmp_path: Path, size: int) -> None:
    path = _write(tmp_path / "x", CONTENT[:size])
    assert path.stat().st_size == 64 + size + 16 * -(-size // CHUNK)
    assert _read(SealedFile(path, KEY), 0, size) == CONTENT[:size]


def test_nothing_of_the_content_can_be_seen(tmp_path: Path) -> None:
    sealed = _write(tmp_path / "x", b"secret" * 1000).read_bytes()
    assert b"secret" not in sealed
    assert sealed != _write(tmp_path / "y", b"secret" * 1000).read_bytes(), "each file has a key of its own"


@pytest.mark.parametrize("place", [16, 24, 40, 63, 64, 70, CHUNK // 2, 64 + CHUNK + 8, 2 * CHUNK + 200])
def test_a_flipped_byte_is_found(tmp_path: Path, place: int) -> None:
    path = _write(tmp_path / "x")
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    file = SealedFile(path, KEY)
    with pytest.raises(CheckpointError, match="is not what was written"):
        _read(file, 0, min(file.num_bytes, len(CONTENT)))


def test_chunks_cannot_change_places_nor_files(tmp_path: Path) -> None:
    path, other = _write(tmp_path / "x"), _write(tmp_path / "y")
    sealed, size = path.read_bytes(), CHUNK + 16
    first, second, rest = sealed[64 : 64 + size], sealed[64 + size : 64 + 2 * size], sealed[64 + 2 * size :]
    for swapped in (second + first + rest, other.read_bytes()[64 : 64 + size] + second + rest):
        path.write_bytes(sealed[:64] + swapped)
        with pytest.raises(CheckpointError, match="chunk 0 is not what was written"):
            _read(SealedFile(path, KEY), 0, 10)


def test_a_file_cannot_be_cut_off(tmp_path: Path) -> None:
    path = _write(tmp_path / "x")
    whole = path.read_bytes()
    path.write_bytes(whole[: 64 + CHUNK + 16])
    file = SealedFile(path, KEY)
    assert _read(file, 0, CHUNK) == CONTENT[:CHUNK]
    with pytest.raises(CheckpointError, match="chunk 1 is not what was written"):
        _read(file, 0, CHUNK + 1)
    shorter = struct.pack("<Q", CHUNK)  # in the header, which every tag holds
    path.write_bytes(whole[:16] + shorter + whole[24 : 64 + CHUNK + 16])
    with pytest.raises(CheckpointError, match="chunk 0 is not what was written"):
        _read(SealedFile(path, KEY), 0, 10)


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the key is another one"):
        _read(SealedFile(_write(tmp_path / "x"), SealingKey(bytes(32))), 0, 10)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is no encrypted file"),
        (b"GPTDSEAL", "is no encrypted file"),
        (b"safetens" * 10, "is no encrypted file"),
        (b"GPTDSEAL\x02\x00\x00\x00" + bytes(60), "version 2 is unknown"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=match):
        SealedFile(path, KEY)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        SealedFile(tmp_path / "none", KEY)


def test_lengths_are_kept_to() -> None:
    writer = SealedWriter(io.BytesIO(), KEY, 3)
    writer.write(b"ab")
    with pytest.raises(AssertionError, match="1 bytes fewer"):
        writer.finish()
    with pytest.raises(AssertionError, match="1 bytes more"):
        writer.write(b"cd")
