"""What goes wrong through a user's input, as exceptions whose text is one line to act on.

The command line prints these and exits with status 2; anything else is a bug and keeps its traceback.
Text of each: ``<config path | file | rank and step>: <the fact, with values>; <what to do>``.
"""

from collections.abc import Iterable

EXIT_USER_ERROR = 2
"""Exit status of every command where the input has to be mended."""


class GptDistError(Exception):
    """Base of every error that a user can cause and mend."""

    @property
    def problems(self) -> tuple[str, ...]:
        """The lines to show, one for each problem."""
        return (str(self),)


class ConfigError(GptDistError):
    """A configuration that cannot run; holds every problem found, not only the first."""

    def __init__(self, problems: Iterable[str]) -> None:
        """Keep ``problems``, each a whole line."""
        self._problems = tuple(problems)
        super().__init__("\n".join(self._problems))

    @property
    def problems(self) -> tuple[str, ...]:
        """The lines to show, one for each problem."""
        return self._problems


class DataError(GptDistError):
    """A document, shard or dataset folder that is missing, damaged or empty."""


class DataProblemsError(DataError):
    """Several of these at once: all that is wrong with a run's sources, or with the tasks of a step."""

    def __init__(self, problems: Iterable[str]) -> None:
        """Keep ``problems``, each a whole line; the same line is kept once."""
        self._problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self._problems))

    @property
    def problems(self) -> tuple[str, ...]:
        """The lines to show, one for each problem."""
        return self._problems


class TokenizerError(GptDistError):
    """A tokenizer that cannot be trained, loaded, or is not the one the data was made with."""


class CheckpointError(GptDistError):
    """A checkpoint that is missing, damaged, or belongs to another run."""


class StoreError(CheckpointError):
    """A remote store that does not answer, refuses, or is not there."""


class ExportError(GptDistError):
    """A model that has no counterpart in the target format, or came out different."""


class ModelImportError(GptDistError):
    """Weights of another format that have no counterpart here, are damaged, or came out different."""


class TrainingError(GptDistError):
    """A run that cannot start or go on."""
