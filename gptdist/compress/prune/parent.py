"""What a pruned model says of the one that it was."""

from pathlib import Path

from gptdist.checkpoint.manifest import SourceRecord
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.verify import source_record
from gptdist.compress.import_model import CONFIG_FILE


def parents(source: Path, reader: CheckpointReader) -> tuple[SourceRecord, ...]:
    """Return what is noted of the model that was named as ``source`` and is read by ``reader``.

    A folder in the Hugging Face layout was imported for that: noted is what it was imported of.
    """
    origin = reader.manifest.origin
    if (source / CONFIG_FILE).is_file() and origin is not None:
        return origin.sources
    return (source_record(reader.folder, reader.manifest),)
