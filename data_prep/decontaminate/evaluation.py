"""Reading evaluation sets: samples, each with its texts."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gptdist.config.prep_decontaminate import evaluation_suffix
from gptdist.errors import DataError

_BATCH_ROWS = 1024


def read_samples(path: Path, text_keys: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield number and texts of every sample of a file.

    The number is the line of ``.txt`` and ``.jsonl`` (from 1), the row of ``.parquet`` and the place in the list of
    ``.json`` (from 0). Texts are the strings under ``text_keys``, in lists and records within them too; without keys
    all strings of the sample.

    Raises:
        DataError: the file is missing, unreadable, empty, not of its format, or has a sample without any of the keys.
    """
    suffix = evaluation_suffix(path)
    empty = True
    try:
        for number, record in _RECORDS[suffix](path, text_keys):
            texts = list(_chosen_texts(record, text_keys, f"{path}: sample {number}"))
            empty = empty and not any(text.strip() for text in texts)
            yield number, texts
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); restore it, or take it out of decontaminate") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start} of its text; convert it") from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deep to read; flatten it") from None
    if empty:
        raise DataError(f"{path}: no text in it; restore it, change text_keys, or take it out of decontaminate")


def _open(path: Path) -> Any:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _open(path) as content:
        for number, line in enumerate(content, start=1):
            text = line.decode().removeprefix("\ufeff" if number == 1 else "")
            if text.strip():
                yield number, text


def _text_records(path: Path, text_keys: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Yield lines; there are no keys to look for."""
    for number, line in _lines(path):
        yield number, dict.fromkeys(text_keys, line) if text_keys else line


def _json_lines_records(path: Path, text_keys: Sequence[str]) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(path):
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error}); mend or remove the line") from None


def _json_records(path: Path, text_keys: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Yield the members of the outermost list, which may be the only list of a record, or of its values."""
    with _open(path) as content:
        text = content.read().decode().removeprefix("\ufeff")
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); mend it, or call it .jsonl if it has a record a line") from None
    if isinstance(tree, dict):
        lists = [value for value in tree.values() if isinstance(value, list)]
        tree = lists[0] if len(lists) == 1 else list(tree.values())
    yield from enumerate(tree if isinstance(tree, list) else [tree])


def _parquet_records(path: Path, text_keys: Sequence[str]) -> Iterator[tuple[int, Any]]:
    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            missing = [key for key in text_keys if key not in names]
            if missing:
                raise DataError(f"{path}: no column '{missing[0]}' (columns: {', '.join(names)}); change text_keys")
            number = 0
            for batch in table.iter_batches(_BATCH_ROWS, columns=list(text_keys) or None):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({error}); restore it") from None


_RECORDS = {
    ".txt": _text_records,
    ".jsonl": _json_lines_records,
    ".json": _json_records,
    ".parquet": _parquet_records,
}


def _chosen_texts(record: Any, text_keys: Sequence[str], where: str) -> Iterator[str]:
    if not text_keys or not isinstance(record, dict):
        yield from _strings(record)
        return
    if not any(key in record for key in text_keys):
        known = ", ".join(list(record)[:10])
        raise DataError(f"{where} has none of {', '.join(text_keys)} (keys: {known}); change text_keys")
    for key in text_keys:
        yield from _strings(record.get(key))


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for member in value:
                yield from _strings(member)
        case dict():
            for member in value.values():
                yield from _strings(member)
