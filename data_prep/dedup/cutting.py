"""Cut spans of bytes out of the texts of an Arrow column."""

from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.compiled import compiled
from data_prep.dedup.records import Array


def text_bytes(column: Any) -> tuple[Array, Array]:
    """Return the offsets (one more than texts) and the UTF-8 bytes of a ``large_string`` column, without a copy."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    return ends, np.frombuffer(data if data is not None and data.size else b"\0", dtype=np.uint8)


def cut_texts(column: Any, rows: Array, begins: Array, ends: Array) -> Any:
    """Return the column without the bytes ``begins`` … ``ends`` of the texts ``rows``; ascending, no overlaps."""
    offsets, data = text_bytes(column)
    new_offsets = np.empty_like(offsets)
    new_data = np.empty(int(offsets[-1] - offsets[0] - (ends - begins).sum()), dtype=np.uint8)
    _copy_but(offsets, data, rows, begins, ends, new_offsets, new_data)
    return pa.LargeStringArray.from_buffers(len(column), pa.py_buffer(new_offsets), pa.py_buffer(new_data))


@compiled
def _copy_but(
    offsets: Array, data: Array, rows: Array, begins: Array, ends: Array, new_offsets: Array, new_data: Array
) -> None:
    new_offsets[0] = 0
    place, span = 0, 0
    for row in range(len(offsets) - 1):
        at = offsets[row]
        while span < len(rows) and rows[span] == row:
            end = offsets[row] + begins[span]
            new_data[place : place + end - at] = data[at:end]
            place += end - at
            at = offsets[row] + ends[span]
            span += 1
        new_data[place : place + offsets[row + 1] - at] = data[at : offsets[row + 1]]
        place += offsets[row + 1] - at
        new_offsets[row + 1] = place
