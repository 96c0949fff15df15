"""Conversations out of JSON Lines, every problem of every line at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from data_prep.readers.lines import read_lines
from gptdist.errors import ConfigError, DataError

ROLES = ("system", "user", "assistant")
ASSISTANT = "assistant"
MAX_LINE_BYTES = 1 << 26
_SHOWN_PROBLEMS = 20
_FORMS = '{"prompt": …, "completion": …} or {"messages": [{"role": …, "content": …}, …]}'


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: str
    content: str

    @property
    def is_learnt(self) -> bool:
        """Whether the model is to say it."""
        return self.role == ASSISTANT


@dataclass(frozen=True)
class Conversation:
    """One line of a file."""

    path: str
    line: int
    """From 1."""

    offset: int
    """Byte at which the line begins."""

    turns: tuple[Turn, ...]
    is_chat: bool
    """Whether it was given as messages; else it is a prompt and a completion."""

    @property
    def where(self) -> str:
        """The line, as an error names it."""
        return f"{self.path}:{self.line}"


def read_conversations(paths: Sequence[Path]) -> list[Conversation]:
    """Return the conversations of all files, in their order; all of them are held in memory.

    Raises:
        ConfigError: every line that is no conversation, by file and line, the first 20 of them.
        DataError: a file cannot be read, or there is no line in any.
    """
    found: list[Conversation] = []
    problems: list[str] = []
    for path in paths:
        for one in _lines(path):
            if isinstance(one, Conversation):
                found.append(one)
            else:
                problems.append(one)
    raise_problems(problems)
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no conversation in it; write one {_FORMS} a line")
    return found


def raise_problems(problems: Sequence[str]) -> None:
    """Raise what is wrong with lines, if anything is.

    Raises:
        ConfigError: the first problems, and how many there are beyond them.
    """
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        rest = [f"and {more} problems more in other lines; mend these kinds everywhere"] if more > 0 else []
        raise ConfigError([*problems[:_SHOWN_PROBLEMS], *rest])


def _lines(path: Path) -> Iterator[Conversation | str]:
    try:
        for number, (offset, line) in enumerate(read_lines(str(path), 0, None, MAX_LINE_BYTES), start=1):
            if line is None:
                yield f"{path}:{number}: more than {MAX_LINE_BYTES:,} bytes; split it"
            elif line.strip():
                yield from _conversation(line, str(path), number, offset)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); restore it") from None


def _conversation(line: bytes, path: str, number: int, offset: int) -> Iterator[Conversation | str]:
    where = f"{path}:{number}"
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        yield f"{where}: not JSON ({error}); write one {_FORMS} a line"
        return
    if not isinstance(record, dict) or ("messages" in record) == ("prompt" in record or "completion" in record):
        yield f"{where}: neither a prompt with a completion nor messages, or both; write {_FORMS}"
        return
    is_chat = "messages" in record
    problems = list(_message_problems(record["messages"]) if is_chat else _pair_problems(record))
    yield from (f"{where}: {problem}" for problem in problems)
    if not problems:
        turns = (
            tuple(Turn(one["role"], one["content"]) for one in record["messages"])
            if is_chat
            else (Turn("user", record["prompt"]), Turn(ASSISTANT, record["completion"]))
        )
        yield Conversation(path, number, offset, turns, is_chat)


def _pair_problems(record: dict[str, Any]) -> Iterator[str]:
    for key in ("prompt", "completion"):
        if key not in record:
            yield f"no {key}; add one"
        elif not isinstance(record[key], str):
            yield f"{key} is {_shown(record[key])}, no text; write a string"
    if record.get("completion") == "":
        yield "the completion is empty, so there is nothing to learn; write one, or remove the line"


def _message_problems(messages: Any) -> Iterator[str]:
    if not isinstance(messages, list) or not messages:
        yield f"messages is {_shown(messages)}, no list of messages; write {_FORMS}"
        return
    for index, one in enumerate(messages):
        role, content = (one.get("role"), one.get("content")) if isinstance(one, dict) else (None, None)
        if role not in ROLES:
            yield f"messages[{index}].role is {_shown(role)}; use {', '.join(ROLES)}"
        if not isinstance(content, str):
            yield f"messages[{index}].content is {_shown(content)}, no text; write a string"
        elif role == ASSISTANT and not content:
            yield f"messages[{index}].content is empty, so there is nothing to learn; write it, or remove the message"
    if not any(isinstance(one, dict) and one.get("role") == ASSISTANT for one in messages):
        yield "no message of the assistant, so there is nothing to learn; add one, or remove the line"


def _shown(value: Any) -> str:
    return repr(value)[:40]
