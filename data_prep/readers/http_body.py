"""What an HTTP response carries once its transfer and content encodings are undone, in bounded memory."""

import io
import re
import zlib

from fastwarc.stream_io import BrotliReader, ZstdReader

_CHUNK_HEADER = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_GZIP, _ZLIB_OR_GZIP, _RAW_DEFLATE = b"\x1f\x8b", 47, -15


class BodyError(Exception):
    """A body whose encoding is not what its header says, or is unknown."""


def decode_body(content: bytes, transfer: str | None, encoding: str | None, limit: int) -> bytes:
    """Return the body of a response.

    Crawlers often undo an encoding and leave its header: a body that does not begin as the encoding does is taken
    as it is.

    Args:
        content: the bytes as they were stored.
        transfer: the response's ``Transfer-Encoding``.
        encoding: its ``Content-Encoding``.
        limit: the result is cut at one byte more.

    Raises:
        BodyError: it is cut short, damaged, or its encoding is unknown.
    """
    if transfer is None and encoding is None:
        return content
    try:
        if transfer is not None and "chunked" in transfer.lower() and _CHUNK_HEADER.match(content):
            content = _unchunk(content)
        for name in reversed((encoding or "").lower().split(",")):
            content = _decode(content, name.strip(), limit)
    except (OSError, zlib.error) as error:
        raise BodyError(str(error)) from None
    return content


def _unchunk(content: bytes) -> bytes:
    parts: list[bytes] = []
    place = 0
    while (head := _CHUNK_HEADER.match(content, place)) is not None:
        size = int(head.group(1), 16)
        if size == 0:
            return b"".join(parts)
        part = content[head.end() : head.end() + size]
        if len(part) < size:
            break
        parts.append(part)
        place = head.end() + size + 2
    raise BodyError(f"the chunks end at byte {place} without a last one")


def _decode(content: bytes, name: str, limit: int) -> bytes:
    match name:
        case "" | "identity" | "none" | "utf-8":
            return content
        case _ if content.lstrip()[:1] == b"<":
            return content  # markup: the crawler undid the encoding
        case "gzip" | "x-gzip":
            return _inflate(content, _ZLIB_OR_GZIP, limit) if content.startswith(_GZIP) else content
        case "deflate":
            return _inflate(content, _ZLIB_OR_GZIP if _is_zlib(content) else _RAW_DEFLATE, limit)
        case "br":
            return BrotliReader(io.BytesIO(content)).read(limit + 1)
        case "zstd":
            return ZstdReader(io.BytesIO(content)).read(limit + 1)
    raise BodyError(f"Content-Encoding '{name[:40]}' is unknown")


def _inflate(content: bytes, window_bits: int, limit: int) -> bytes:
    inflator = zlib.decompressobj(window_bits)
    body = inflator.decompress(content, limit + 1)
    if not inflator.eof and len(body) <= limit:
        raise BodyError("the compressed body is cut short")
    return body


def _is_zlib(content: bytes) -> bool:
    return len(content) >= 2 and content[0] & 15 == 8 and (content[0] << 8 | content[1]) % 31 == 0
