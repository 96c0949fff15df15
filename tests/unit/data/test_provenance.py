"""The Parquet file beside a shard: the same bytes however its rows came, and every row as it was given."""

from pathlib import Path

import pytest

from gptdist.data import provenance
from gptdist.data.provenance import (
    DocumentSpan,
    Provenance,
    ProvenanceWriter,
    read_columns,
    read_digests,
    read_provenance,
)
from gptdist.errors import DataError

ROWS = [
    Provenance("a.warc.gz", 3, "https://example.org/\u00e9", 10, 4, "0" * 32, offset=0, language="de"),
    Provenance("a.warc.gz", 3, "https://example.org/\u00e9", 0, 2, "0" * 32, offset=0, language="de", piece=1),
    Provenance("b.txt", 0, None, 7, 3, "f" * 32),
] * 5


def write(folder: Path, sizes: list[int]) -> str:
    folder.mkdir()
    writer = ProvenanceWriter(folder, "a")
    begin = 0
    for size in sizes:
        writer.append_rows(ROWS[begin : begin + size])
        begin += size
    return writer.close()


def test_row_groups_do_not_depend_on_how_rows_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_ROW_GROUP", 4)
    hashes = {write(tmp_path / str(number), sizes) for number, sizes in enumerate(([15], [1] * 15, [7, 8], [4, 11]))}
    assert len(hashes) == 1
    assert [batch.num_rows for batch in read_columns(tmp_path / "0", "a", ["piece"])] == [4, 4, 4, 3]


def test_rows_are_read_as_they_were_given(tmp_path: Path) -> None:
    write(tmp_path / "x", [15])
    spans = [DocumentSpan("a", document, 0, 0) for document in (14, 0, 1)]
    assert read_provenance(tmp_path / "x", spans) == [ROWS[14], ROWS[0], ROWS[1]]
    assert read_digests(tmp_path / "x", "a") == [row.text_digest for row in ROWS]


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    writer = ProvenanceWriter(tmp_path, "a")
    writer.append_rows(ROWS)
    writer.discard()
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read .*; prepare the data again"):
        read_digests(tmp_path, "a")
