"""What goes wrong through a user's input, as exceptions whose text is one line to act on.

The command line prints these and exits with status 2; anything else is a bug and keeps its traceback.
Text of each: ``<config path | file | rank and step>: <the fact, with values>; <what to do>``.
"""

from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
"""Exit status of every command where the input has to be mended: the same command would fail again."""

EXIT_STOPPED = 3
"""A run was stopped by a person, and is saved: by Ctrl-C, or by a file ``STOP`` in its folder."""

EXIT_REQUEUE = 75
"""A run was stopped by its scheduler or by its time limit, and is saved: the same command goes on. EX_TEMPFAIL of
sysexits.h."""

EXIT_STALLED = 76
"""A run made no progress and was ended by the watchdog."""

EXIT_INTERRUPTED = 130
"""A command that saves nothing was ended by Ctrl-C. 128 + SIGINT, as shells have it."""


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


class LaunchError(ConfigError):
    """Hosts, variables of a launcher, or programs that a launch needs are missing or contradict each other."""


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


class BundleError(ConfigError):
    """A folder that is handed on: files of it are missing, damaged, too many, or not signed by whom they should be."""


class ModelImportError(GptDistError):
    """Weights of another format that have no counterpart here, are damaged, or came out different."""


class TrainingError(GptDistError):
    """A run that cannot start or go on."""
