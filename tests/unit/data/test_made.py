"""Made datasets are whole ones, the same every time."""

from pathlib import Path

from gptdist.data.made import DOCUMENTS, made_documents, make_dataset
from gptdist.data.manifest import DatasetManifest
from gptdist.data.verify import verify_dataset
from gptdist.tokenizer.byte import ByteTokenizer


def test_a_made_dataset_verifies(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a" / "web", ByteTokenizer())
    make_dataset(tmp_path / "b" / "web", ByteTokenizer())
    make_dataset(tmp_path / "b" / "code", ByteTokenizer())
    assert verify_dataset(tmp_path / "a" / "web") == []
    one, same, other = (DatasetManifest.read(tmp_path / name) for name in ("a/web", "b/web", "b/code"))
    assert one.fingerprint() == same.fingerprint(), "the name decides"
    assert one.fingerprint() != other.fingerprint()
    assert {split: found.documents for split, found in one.splits.items()} == DOCUMENTS
    first, second = ((tmp_path / "a" / "web" / f"{split}-00000.bin").read_bytes() for split in DOCUMENTS)
    assert first[:200] != second[:200], "other words"
    assert made_documents(5, "web") == made_documents(5, "web")
