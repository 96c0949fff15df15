"""Texts and votes in one SQLite file; a vote is on the disk when it is acknowledged. No torch."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gptdist.errors import ConfigError

APPLICATION_ID = 0x67706472
"""In the header of our files: a file of another program is not written into."""

LEFT, RIGHT, TIE, BOTH_BAD = "left", "right", "tie", "both_bad"
CHOICES = (LEFT, RIGHT, TIE, BOTH_BAD)

_SCHEMA = """
create table if not exists texts (
  prompt_hash text not null, prompt text not null, model text not null, settings text not null, text text not null,
  primary key (prompt_hash, model, settings)
);
create table if not exists votes (
  id integer primary key, prompt_hash text not null, left_model text not null, right_model text not null,
  rater text not null, choice text not null check (choice in ('left', 'right', 'tie', 'both_bad')), time text not null
);
create table if not exists models (model text primary key, name text not null);
"""


@dataclass(frozen=True)
class Vote:
    """What one rater thought of one pair of texts."""

    prompt_hash: str
    left_model: str
    right_model: str
    rater: str
    choice: str
    """One of ``CHOICES``, as the rater saw the sides."""

    time: str = ""
    """UTC, ISO 8601."""

    @property
    def winner(self) -> str | None:
        """The model that was found better; none of a tie, or where both are bad."""
        return {LEFT: self.left_model, RIGHT: self.right_model}.get(self.choice)

    @property
    def meaning(self) -> str:
        """What was chosen, whichever side it stood on."""
        return self.winner or self.choice


def prompt_hash(prompt: str) -> str:
    """Return what a prompt is known by."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


class Store:
    """A results file; every call opens it anew, so that threads may share one of these."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, or make it.

        Raises:
            ConfigError: it is no results file of gptdist, or cannot be written.
        """
        self.path = path
        try:
            with self._open() as connection:
                (found,) = connection.execute("pragma application_id").fetchone()
                tables = connection.execute("select count(*) from sqlite_master").fetchone()[0]
                if tables and found != APPLICATION_ID:
                    raise ConfigError([f"{path}: is a file of another program; name a new one"])
                connection.execute(f"pragma application_id = {APPLICATION_ID}")
                connection.execute("pragma journal_mode = wal")
                connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise ConfigError([f"{path}: cannot be used ({error}); name another file"]) from None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=30.0)
        try:
            connection.execute("pragma synchronous = full")  # with a write-ahead log too: no vote may be lost
            with connection:
                yield connection
        finally:
            connection.close()

    def add_vote(self, vote: Vote) -> None:
        """Keep a vote; the newest of a rater on a prompt and pair is the one that counts."""
        row = (
            vote.prompt_hash,
            vote.left_model,
            vote.right_model,
            vote.rater,
            vote.choice,
            datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        with self._open() as connection:
            connection.execute(
                "insert into votes (prompt_hash, left_model, right_model, rater, choice, time) "
                "values (?, ?, ?, ?, ?, ?)",
                row,
            )

    def votes(self) -> list[Vote]:
        """Return the votes that count: of each rater, prompt and pair of models the newest."""
        with self._open() as connection:
            rows = connection.execute(
                "select prompt_hash, left_model, right_model, rater, choice, time from votes order by id"
            ).fetchall()
        newest = {}
        for vote in (Vote(*row) for row in rows):
            newest[vote.prompt_hash, frozenset((vote.left_model, vote.right_model)), vote.rater] = vote
        return list(newest.values())

    def keep_text(self, prompt: str, model: str, settings: str, text: str) -> None:
        """Keep what ``model`` wrote with ``settings``."""
        with self._open() as connection:
            connection.execute(
                "insert or replace into texts values (?, ?, ?, ?, ?)",
                (prompt_hash(prompt), prompt, model, settings, text),
            )

    def texts(self, model: str, settings: str) -> dict[str, str]:
        """Return what ``model`` wrote with ``settings``, by prompt."""
        with self._open() as connection:
            rows = connection.execute(
                "select prompt, text from texts where model = ? and settings = ?", (model, settings)
            ).fetchall()
        return dict(rows)

    def name_models(self, names: Sequence[tuple[str, str]]) -> None:
        """Keep what models are called; the last name counts."""
        with self._open() as connection:
            connection.executemany("insert or replace into models values (?, ?)", names)

    def model_names(self) -> dict[str, str]:
        """Return what models are called, by id."""
        with self._open() as connection:
            return dict(connection.execute("select model, name from models").fetchall())
