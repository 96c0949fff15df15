"""The model that a command is given: whether there is one is said before torch is loaded, which takes seconds."""

from pathlib import Path

CONFIG_FILE = "config.json"
"""A folder with it is in the Hugging Face layout."""


def expect_model(path: Path) -> None:
    """Refuse a folder that is neither in the Hugging Face layout nor holds a checkpoint, by names alone.

    Raises:
        CheckpointError: it is not, or not there.
    """
    from gptdist.checkpoint.find import expect_checkpoint
    from gptdist.errors import CheckpointError

    if not path.exists():
        raise CheckpointError(f"{path}: does not exist; name a run, a checkpoint or a Hugging Face folder")
    if not (path / CONFIG_FILE).is_file():
        expect_checkpoint(path)
