"""What ``gptdist rehearse`` works with: the small run, its folder, data and keys; torch for fp16 alone."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ruamel.yaml import YAML

from gptdist.checkpoint.identity import changes
from gptdist.config.run import RunConfig
from gptdist.config.shrink import Materials, SmallRun, shrink
from gptdist.data.made import make_dataset
from gptdist.data.manifest import DatasetManifest
from gptdist.errors import ConfigError
from gptdist.mesh.layout import Layout
from gptdist.tokenizer.byte import ByteTokenizer
from launch.checks import check_contents, machine_problems

KEY_BYTES = 32


@dataclass(frozen=True)
class Rehearsal:
    """All that the phases need."""

    real: RunConfig
    small: SmallRun
    materials: Materials
    world_size: int
    """Ranks of the real run."""

    data: str
    """What was found of the data, or made, in one line."""

    data_seconds: float
    missing: tuple[str, ...]
    """What the real run needs and this machine has not."""

    @property
    def config_path(self) -> Path:
        """File of the small run's config."""
        return self.materials.folder / "config.yaml"

    @property
    def layouts(self) -> tuple[Layout, Layout]:
        """Those of the real and of the small run."""
        small = self.small.config.parallel
        return Layout.of(self.real.parallel, self.world_size), Layout.of(small, self.small.ranks)

    def changed(self) -> list[str]:
        """Return ``key: was → now`` for all that is another in the small run; of data the folders are not told."""
        lines = changes(self.real.tree(), self.small.config.tree())
        untold = tuple(f"{key}:" for key in ("run_dir", "data.sources", "data.tokenizer", "data.validation"))
        return [line for line in lines if not line.startswith(untold)]

    def tree(self) -> dict[str, Any]:
        """Return as plain data what is rehearsed."""
        real, small = self.layouts
        return {
            "ranks": self.small.ranks,
            "real_ranks": self.world_size,
            "layout": str(small),
            "real_layout": str(real),
            "changed": self.changed(),
            "left_out": list(self.small.left_out),
            "missing": list(self.missing),
        }

    def heading(self) -> list[str]:
        """Return what is rehearsed, a line each."""
        real, small = self.layouts
        zero = self.real.parallel.zero_stage
        lines = [f"{self.real.name}: {real}, ZeRO {zero}", f"rehearsed as: {small}, ZeRO {zero}, on this machine's CPU"]
        parts = {
            "changed": self.changed(),
            "left out": self.small.left_out,
            "not on this machine": self.missing,
        }
        for title, found in parts.items():
            lines += [f"{title}:", *(f"  {line}" for line in found)] if found else []
        return lines


def checked_folder(folder: Path) -> Path:
    """Return the absolute path of a new or empty folder, made if need be.

    Raises:
        ConfigError: it holds something, or is none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError([f"--keep: '{folder}' is not empty; name a new folder"])
    except OSError as error:
        raise ConfigError([f"--keep: '{folder}' is no folder to write to ({error.strerror}); name another"]) from None
    return folder.absolute()


def prepare(config: RunConfig, folder: Path, *, nodes: int, ranks: int | None, real_data: bool | None) -> Rehearsal:
    """Return the rehearsal of ``config``, with all that its small run reads in ``folder``.

    Args:
        config: of the real run, without problems.
        folder: for all that is made.
        nodes: of the real run.
        ranks: of the rehearsal; default: as many as it takes.
        real_data: whether to read the config's own data; default: if all of it is there.

    Raises:
        ConfigError: folders are missing that have to be there, or the ranks do not do.
        GptDistError: what the config names is there, and the real run would refuse it.
    """
    begin, absent = time.perf_counter(), config.data.path_problems()
    is_real = not absent if real_data is None else real_data
    world_size = config.launch.ranks_per_node * nodes
    tokenizer = ByteTokenizer()
    if is_real:
        check_contents(config)
        materials = Materials(folder, packed_for=_packed_for(config))
    else:
        materials = Materials(folder, made_vocab_size=tokenizer.vocab_size, made_end_token=tokenizer.eod_token)
    if config.training.precision == "fp16":
        from gptdist.device.device import cpu_has_fp16  # torch knows

        materials = replace(materials, has_fp16=cpu_has_fp16())
    small = shrink(config, world_size, materials, ranks=ranks)
    problems = small.config.problems()
    if problems:
        raise ConfigError(f"the small run cannot be trained: {problem}" for problem in problems)
    if not is_real:
        _make_data(config, materials, tokenizer)
    _make_keys(small.config, materials)
    missing = (*(() if is_real else absent), *machine_problems(config), *config.checkpoints.package_problems())
    rehearsal = Rehearsal(
        real=config,
        small=small,
        materials=materials,
        world_size=world_size,
        data=_data_line(config, is_real=is_real),
        data_seconds=time.perf_counter() - begin,
        missing=missing,
    )
    with rehearsal.config_path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(small.config.tree(), file)
    return rehearsal


def _packed_for(config: RunConfig) -> int | None:
    """Return the only sample length that suits the run's data, if any of it was packed."""
    folders = [source.path for source in config.data.sources] + [one.path for one in config.data.validation]
    lengths = {DatasetManifest.read(folder).packing_seq_length for folder in folders} - {None}
    return lengths.pop() if lengths else None  # were they several, the run would have been refused


def _data_line(config: RunConfig, *, is_real: bool) -> str:
    names = ", ".join(source.name for source in config.data.sources)
    if is_real:
        return f"the run's own, opened as the real run would: {names}"
    return f"made here, a few documents for each source: {names}; --real-data reads the run's own"


def _make_data(config: RunConfig, materials: Materials, tokenizer: ByteTokenizer) -> None:
    tokenizer.save(materials.tokenizer)
    for source in config.data.sources:
        make_dataset(materials.source(source.name), tokenizer)
    for one in config.data.validation:
        make_dataset(materials.validation(one.name), tokenizer)


def _make_keys(config: RunConfig, materials: Materials) -> None:
    """Make the folder that stands for a store, and the keys that the small run asks for."""
    if config.checkpoints.remote is not None:
        materials.store.mkdir()
    protection = config.checkpoints.protection
    materials.encryption_key.parent.mkdir(mode=0o700)
    if protection.encrypt:
        materials.encryption_key.write_text(f"{os.urandom(KEY_BYTES).hex()}\n", encoding="ascii")
    if protection.signing_key_path is not None:
        private = Ed25519PrivateKey.generate()
        pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
        public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        materials.private_key.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
        materials.public_key.write_bytes(public)
