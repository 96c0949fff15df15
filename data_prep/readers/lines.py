"""Lines of plain and compressed files, in bounded memory whatever a line's length or a file's compression."""

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

from data_prep.readers.storage import open_file

_CHUNK_BYTES = 1 << 17
"""Also what is lost of a truncated file: the decompressor gives no part of its last block."""

_SCAN_BYTES = 1 << 22
_CODECS = {".gz": "gzip", ".zst": "zstd"}


def codec_of(path: str) -> str | None:
    """Return the compression that a file's name tells, or None."""
    return next((codec for suffix, codec in _CODECS.items() if path.lower().endswith(suffix)), None)


def inflated(file: IO[bytes], codec: str) -> Any:
    """Return the decompressed stream; it raises ``OSError`` where the content is damaged or cut short."""
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)


def read_lines(path: str, begin: int, end: int | None, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield the byte at which each line begins and the line, or None in place of one larger than ``limit``.

    Args:
        path: the file; a compressed one is read from its start, and bytes are those of its content.
        begin: byte at which a line begins.
        end: byte at which another one does; None is the end of the file.
        limit: bytes.

    Raises:
        DataError: the file cannot be read.
        OSError: compressed content is damaged or cut short.
    """
    with open_file(path) as file:
        codec = codec_of(path)
        if codec is not None:
            with inflated(file, codec) as stream:
                yield from split_lines(_chunks(stream, None), 0, limit)
        else:
            file.seek(begin)
            yield from split_lines(_chunks(file, None if end is None else end - begin), begin, limit)


def split_lines(chunks: Iterator[bytes], begin: int, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield offset and content of the lines of ``chunks``, the first of which begins at byte ``begin``."""
    held: list[bytes] = []
    held_bytes, offset = 0, begin
    for chunk in chunks:
        lines = chunk.split(b"\n")
        tail = lines.pop()
        for line in lines:
            size = held_bytes + len(line)
            yield offset, None if size > limit else b"".join((*held, line)) if held else line
            offset += size + 1
            held.clear()
            held_bytes = 0
        held_bytes += len(tail)
        if held_bytes > limit:
            held.clear()
        elif tail:
            held.append(tail)
    if held_bytes:
        yield offset, b"".join(held) if held_bytes <= limit else None


def cut_at_lines(path: str, size: int, target: int) -> list[tuple[int, int, int]]:
    """Cut a plain file where lines begin, at or after each multiple of ``target`` bytes.

    Returns:
        Beginning and end in bytes, and number of the lines before, of each part.
    """
    parts, begin, lines_before = [], 0, 0
    block = bytearray(_SCAN_BYTES)  # one for all: new memory costs more than what is done with it
    with open_file(path) as opened:
        file: Any = opened  # every one of them has readinto, though not by its type
        position = lines = 0
        while read := file.readinto(block):
            done = 0
            while (wanted := begin + target - position) < read:
                found = block.find(b"\n", max(wanted - 1, done), read)
                if found < 0:
                    break
                lines += block.count(b"\n", done, found + 1)
                done = found + 1
                parts.append((begin, position + done, lines_before))
                begin, lines_before = position + done, lines
            lines += block.count(b"\n", done, read)
            position += read
    if begin < size or not parts:
        parts.append((begin, size, lines_before))
    return parts


def _chunks(stream: Any, size: int | None) -> Iterator[bytes]:
    left = size
    while left is None or left > 0:
        chunk = stream.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left))
        if not chunk:
            return
        if left is not None:
            left -= len(chunk)
        yield chunk
