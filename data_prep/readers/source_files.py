"""The files of a source, looked for once, and how large its pieces may be."""

from collections.abc import Sequence
from functools import cached_property

from data_prep.readers.found import FoundFile, find_files, in_random_order
from data_prep.readers.storage import version_of
from data_prep.work import Piece
from gptdist.config.prep import PrepConfig
from gptdist.config.prep_sources import PathsSource, SourceBase

_LEAST_PIECE_BYTES = 1_000_000


def piece_bytes(section: SourceBase, config: PrepConfig) -> int:
    """Return how large a piece may be, in bytes: where ``max_bytes`` cuts, small enough for a mixed sample."""
    if section.max_bytes is None:
        return config.input_shard_bytes
    return min(config.input_shard_bytes, max(_LEAST_PIECE_BYTES, section.max_bytes // 8))


class SourceFiles:
    """The files of a source.

    Args:
        section: the source.
        config: the run; its seed keys which files come first where ``max_bytes`` will cut.
        where: what to put before an error.
        include: patterns of the files to take of a folder.
        exclude: patterns of those not to take.
    """

    def __init__(
        self,
        section: PathsSource,
        config: PrepConfig,
        where: str,
        *,
        include: Sequence[str],
        exclude: Sequence[str] = (),
    ) -> None:
        self._section = section
        self._seed = config.seed
        self._where = where
        self._patterns = include, exclude
        self.piece_bytes = piece_bytes(section, config)

    @cached_property
    def files(self) -> list[FoundFile]:
        """The files, in the order in which they are read.

        Raises:
            DataError: a path is missing, or no file matches.
        """
        include, exclude = self._patterns
        files = find_files(self._section.paths, include=include, exclude=exclude, where=self._where)
        return files if self._section.max_bytes is None else in_random_order(files, self._seed)

    def versions(self) -> list[str]:
        """Return label and version of every file."""
        return [f"{file.label} {version_of(file.path)}" for file in self.files]

    def whole(self) -> list[Piece]:
        """Return every file as one piece."""
        return [Piece(file.path, file.label, file.size) for file in self.files]
