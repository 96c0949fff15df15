"""What every node is asked."""

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from gptdist.telemetry.rank_log import LOG_DIR

VERSIONED = ("torch", "deepspeed", "megatron-core", "numpy")
"""Packages whose versions change numbers or the wire format between ranks."""


@dataclass(frozen=True)
class Request:
    """What every node is asked, the same of all."""

    hosts: tuple[str, ...]
    """Their names, as they reach each other; the first is the head, where the ranks meet."""

    port: int
    """On the head."""

    run_folder: str | None = None
    """Absolute; None: there is no run yet."""

    config_path: str | None = None
    """As the ranks will be given it."""

    interfaces: tuple[str, ...] = ()
    """Network interfaces that each has to have."""

    packages: tuple[str, ...] = VERSIONED
    marker: str = LOG_DIR
    """Environment variable of everything that belongs to a launch; names a folder in the run's."""

    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    """Names the files by which the folder is told to be the same."""

    @property
    def head(self) -> str:
        """Name of the first host."""
        return self.hosts[0]

    def to_json(self) -> str:
        """Return it as a line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return what ``to_json`` has written; what this code does not know, for it is another version, is left out."""
        known = {one.name for one in fields(cls)}
        tree: dict[str, Any] = json.loads(line)
        tree = {name: tuple(it) if isinstance(it, list) else it for name, it in tree.items() if name in known}
        return cls(**tree)


def wanted_interfaces() -> tuple[str, ...]:
    """Return the interfaces that this process's environment tells gloo to use; NCCL takes patterns, not names."""
    return tuple(name for name in os.environ.get("GLOO_SOCKET_IFNAME", "").split(",") if name)


def nonce_path(folder: Path, nonce: str) -> Path:
    """Return the file by which the asker shows its folder."""
    return folder / f".preflight-{nonce}"


def answer_path(folder: Path, nonce: str, name: str) -> Path:
    """Return the file by which a node shows its folder."""
    return folder / f".preflight-{nonce}.{name}"


def own_files(folder: Path, nonce: str, names: Sequence[str]) -> list[Path]:
    """Return all files that a preflight leaves in the folder."""
    return [nonce_path(folder, nonce), *(answer_path(folder, nonce, name) for name in names)]
