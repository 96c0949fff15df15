"""Any model that a compression command is given, as a checkpoint to read weights of."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.read import CheckpointReader
from gptdist.compress.import_model import CONFIG_FILE, ImportOptions, import_huggingface
from gptdist.errors import CheckpointError


@contextmanager
def opened_as_checkpoint(path: Path, beside: Path, tokenizer: Path | None = None) -> Iterator[CheckpointReader]:
    """Give the reader of a run's newest whole checkpoint, of a step folder, or of a folder in the Hugging Face layout.

    The last is imported into a folder that is removed at the end.

    Args:
        path: the model.
        beside: a folder or file on whose disk there is room for a copy; it need not be there yet.
        tokenizer: of the model; default: the run's, or the one beside the weights.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        ModelImportError: the folder's model has no counterpart here, or is damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: does not exist; name a run, a checkpoint or a Hugging Face folder")
    if not (path / CONFIG_FILE).is_file():
        yield CheckpointReader(resolve_checkpoint(path))
        return
    beside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".imported-", dir=beside.parent) as scratch:
        folder = Path(scratch) / path.resolve().name
        import_huggingface(path, folder, ImportOptions(tokenizer=tokenizer, is_compared=False))
        yield CheckpointReader(folder)
