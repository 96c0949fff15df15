"""Where records begin in a web archive, plain or compressed, damaged or not."""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any, Self

import zstandard
from fastwarc.warc import ArchiveIterator

from data_prep.readers.lines import inflated
from data_prep.readers.storage import open_file

_MAGIC = {"gzip": b"\x1f\x8b\x08", "zstd": b"\x28\xb5\x2f\xfd"}
_START = re.compile(rb"WARC/\d\.\d\r?\n")
_START_BYTES = 10
_BLOCK_BYTES = 1 << 20
_MOST_HEADER_BYTES = 1 << 16
_FOLLOWS = re.compile(rb"\s*\Z|\r\n\r\n")
_GZIP_BITS = 31
_GzipInflator = type(zlib.decompressobj())
_INPUT_BYTES = 1 << 12
"""Compressed bytes taken at a time: 4 MB of content at most from gzip."""


class WarcFile:
    """A file of records, opened at the byte where one begins.

    Each record is compressed by itself, so that it can be found again, as the format recommends. A file compressed as
    one stream is read as if it were not compressed; bytes are then those of its content.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with open_file(path) as file:
            head = file.read(4)
        self._codec = next((codec for codec, magic in _MAGIC.items() if head.startswith(magic)), None)
        self.is_one_stream = self._codec is not None and self._has_unmarked_records(self._codec)

    def open(self, position: int) -> Any:
        """Return a stream that begins at ``position``, for ``ArchiveIterator``."""
        file = open_file(self.path)
        if self.is_one_stream and self._codec is not None:
            return _Inflated(file, self._codec, position)
        file.seek(position)
        return file

    def next_start(self, after: int) -> int | None:
        """Return the first byte behind ``after`` at which a record begins, or None."""
        codec = None if self.is_one_stream else self._codec
        pattern = (
            re.compile(re.escape(_MAGIC[codec])) if codec is not None else re.compile(rb"(?<=\n)" + _START.pattern)
        )
        try:
            candidates = self._search(pattern, after)
            return next((place for place in candidates if codec is None or self.begins_record(place)), None)
        except OSError:  # one compressed stream, damaged: there is no way to go on in it
            return None

    def begins_record(self, position: int) -> bool:
        """Whether a record begins at ``position``."""
        with self.open(position) as file:
            try:
                head = _Blocks(file, None if self.is_one_stream else self._codec).begin(_START_BYTES)
            except (OSError, EOFError, zlib.error):
                return False
        return _START.match(head) is not None

    def end_of(self, position: int, content_bytes: int) -> int | None:
        """Return where the record at ``position`` ends, or None if it is not as long as its header says.

        Args:
            position: where it begins.
            content_bytes: length of its content, as its header says.

        Raises:
            EOFError: the compressed record is cut short.
            OSError: it is damaged.
        """
        with self.open(position) as file:
            blocks = _Blocks(file, None if self.is_one_stream else self._codec)
            head = b""
            while (header_bytes := head.find(b"\r\n\r\n") + 4) < 4 and len(head) < _MOST_HEADER_BYTES:
                block = next(blocks, b"")
                if not block:
                    return None
                head += block
            left, rest = header_bytes + content_bytes - len(head), head[header_bytes + content_bytes :]
            for block in blocks:  # of a compressed record to the end, where its checksum is
                rest = block[max(0, left) :] if left > 0 else rest + block
                left -= len(block)
                if left <= 0 and (rest.strip() or len(rest) > _BLOCK_BYTES):
                    break
        if left > 0 or not _FOLLOWS.match(rest):
            return None
        return position + (blocks.packed_bytes or header_bytes + content_bytes)

    def has_more(self, position: int) -> bool:
        """Whether anything but padding is at or behind ``position``.

        Raises:
            OSError: the file is one compressed stream that is damaged or cut short there.
        """
        with self.open(position) as file:
            return any(block.strip(b"\r\n\0") for block in iter(lambda: file.read(_BLOCK_BYTES), b""))

    def _has_unmarked_records(self, codec: str) -> bool:
        """Whether the file's second record does not begin with a compressed block."""
        with open_file(self.path) as file:
            try:
                pairs = zip(range(2), ArchiveIterator(file, parse_http=False), strict=False)
                positions = [record.stream_pos for _, record in pairs]
            except OSError:
                positions = []
        with open_file(self.path) as file:
            if len(positions) == 2:
                file.seek(positions[1])
                return file.read(len(_MAGIC[codec])) != _MAGIC[codec]
            return self._holds_several(_Blocks(file, codec))

    def _holds_several(self, blocks: Iterator[bytes]) -> bool:
        """Whether more than one record begins in the first compressed block."""
        held, found = b"", 0
        with suppress(OSError, EOFError):  # damaged further on, which reading will tell
            for block in blocks:
                held += block
                found += len(_START.findall(held))
                if found > 1:
                    return True
                held = held[-_START_BYTES + 1 :]
        return False

    def _search(self, pattern: re.Pattern[bytes], after: int) -> Iterator[int]:
        overlap = _START_BYTES + 4
        with self.open(after) as file:
            position, held = after, b""
            while block := file.read(_BLOCK_BYTES):
                held += block
                for found in pattern.finditer(held):
                    if position + found.start() > after:
                        yield position + found.start()
                        after = position + found.start()
                position += len(held) - min(len(held), overlap)
                held = held[-overlap:]


class _Blocks:
    """The content of the compressed block that a file is at, or a plain file's from there on."""

    def __init__(self, file: IO[bytes], codec: str | None) -> None:
        self._file = file
        self._inflator: Any = None
        if codec is not None:
            gzip = codec == "gzip"
            self._inflator = zlib.decompressobj(_GZIP_BITS) if gzip else zstandard.ZstdDecompressor().decompressobj()
        self.packed_bytes = 0
        """Compressed bytes used up."""

    def begin(self, size: int) -> bytes:
        """Return the first bytes, or fewer; what is damaged further on does not matter."""
        if not isinstance(self._inflator, _GzipInflator):
            return next(self, b"")[:size]
        return bytes(self._inflator.decompress(self._file.read(_INPUT_BYTES), size))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._inflator is not None and self._inflator.eof:
            raise StopIteration
        block = self._file.read(_BLOCK_BYTES if self._inflator is None else _INPUT_BYTES)
        if self._inflator is None:
            if not block:
                raise StopIteration
            return block
        if not block:
            raise EOFError("cut short")
        try:
            content = self._inflator.decompress(block)
        except (zlib.error, zstandard.ZstdError) as error:
            raise OSError(str(error)) from None
        self.packed_bytes += len(block) - len(self._inflator.unused_data)
        return bytes(content)


class _Inflated(io.RawIOBase):
    """A compressed stream that knows where it is, begun at a byte of its content."""

    def __init__(self, file: IO[bytes], codec: str, position: int) -> None:
        self._file = file
        self._stream = inflated(file, codec)
        self._position = 0
        while self._position < position and self.read(min(_BLOCK_BYTES, position - self._position)):
            pass

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read some bytes."""
        block = bytes(self._stream.read(size if size >= 0 else None))
        self._position += len(block)
        return block

    def tell(self) -> int:
        """Return where it is."""
        return self._position

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()
