"""Load a checked config from a file and overrides."""

from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from gptdist.config.source import apply_overrides, read_tree
from gptdist.errors import ConfigError


class Checked(Protocol):
    """A top-level config: a section that can list what is wrong with itself."""

    @classmethod
    def from_tree(cls, tree: dict[str, Any], origin: str = "") -> Self:
        """Build it from plain data."""
        ...

    def problems(self) -> list[str]:
        """Return every reason why it cannot run."""
        ...


CheckedT = TypeVar("CheckedT", bound=Checked)


def load_config(cls: type[CheckedT], path: Path, overrides: list[str] | None = None) -> CheckedT:
    """Return the config of ``path`` with ``overrides`` on top, checked.

    Raises:
        ConfigError: with every problem, each line beginning with the file's path.
    """
    config = read_config(cls, path, overrides)
    problems = config.problems()
    if problems:
        raise ConfigError(f"{path}: {problem}" for problem in problems)
    return config


def read_config(cls: type[CheckedT], path: Path, overrides: list[str] | None = None) -> CheckedT:
    """Return the config of ``path`` with ``overrides`` on top, its keys and types checked but not its values.

    Raises:
        ConfigError: with every problem, each line beginning with the file's path.
    """
    return cls.from_tree(apply_overrides(read_tree(path), overrides or []), origin=str(path))
