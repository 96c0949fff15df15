"""What `gptdist distill` makes of a teacher and a student before a run is launched."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from gptdist.checkpoint.find import named_checkpoint
from gptdist.checkpoint.verify import describe_file
from gptdist.compress.import_model import CONFIG_FILE, ImportOptions, import_huggingface
from gptdist.config.distillation import DistillationConfig
from gptdist.config.run import RunConfig
from gptdist.errors import CheckpointError


@dataclass(frozen=True)
class Given:
    """A model that the user names, and the checkpoint to take for it."""

    path: Path
    checkpoint: Path

    @property
    def is_imported(self) -> bool:
        """Whether the checkpoint has to be made of a folder in the Hugging Face layout."""
        return self.path != self.checkpoint

    def command(self) -> str:
        """Return the command that makes it."""
        return shlex.join(["gptdist", "import", str(self.path), "--output", str(self.checkpoint), "--no-check"])


def given_model(path: Path, run_folder: Path, role: str) -> Given:
    """Return the model at ``path``; one in the Hugging Face layout is imported once, into RUN/``role``.

    Raises:
        CheckpointError: there is nothing.
    """
    if not path.exists():
        raise CheckpointError(f"--{role}: '{path}' does not exist; name a run, a checkpoint or a Hugging Face folder")
    return Given(path, run_folder / role if (path / CONFIG_FILE).is_file() else path)


def import_once(given: Given, tokenizer: Path) -> None:
    """Make the checkpoint of a model in the Hugging Face layout, unless it is there.

    Args:
        given: the model.
        tokenizer: of it, where there is none beside its weights.

    Raises:
        CheckpointError: what is there was made of other weights.
        ModelImportError: the model has no counterpart here, or is damaged.
    """
    if not given.is_imported:
        return
    if given.checkpoint.exists():
        _, manifest = named_checkpoint(given.checkpoint)
        sources = () if manifest.origin is None else manifest.origin.sources
        noted = {file.name: file.sha256 for source in sources for file in source.files}
        changed = [name for name, sha256 in noted.items() if describe_file(given.path / name).sha256 != sha256]
        if changed or not noted:
            raise CheckpointError(
                f"{given.checkpoint}: was made of other weights than {given.path} ({', '.join(changed) or 'a run'}); "
                f"remove it, or set another run_dir"
            )
        return
    has_own = any(given.path.glob("tokenizer*")) or any(given.path.glob("*.model"))
    options = ImportOptions(tokenizer=None if has_own else tokenizer, is_compared=False)
    import_huggingface(given.path, given.checkpoint, options)


def taught_by(config: RunConfig, teacher: Path | None) -> DistillationConfig | None:
    """Return the section with which logits are cached: with ``teacher``, or as it is; a cache of it is left out."""
    section = config.distillation
    if teacher is None:
        return section
    if section is None:
        return DistillationConfig(teacher=teacher)
    return section.model_copy(update={"teacher": teacher, "cache": None})
