"""Step folders written by hand, cut in any way."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptdist.checkpoint.keys import SealingKey
from gptdist.checkpoint.manifest import WEIGHT, FileEntry, Manifest
from gptdist.checkpoint.seals import UNPROTECTED, Protection, write_manifest
from gptdist.checkpoint.tensor_file import write_stream
from gptdist.config.optimization import ADAM_MOMENTS
from gptdist.mesh.layout import Layout
from tests.support.datasets import GPT2

STATES = (WEIGHT, *ADAM_MOMENTS)


def write_tensors(path: Path, tensors: dict[str, Tensor], sealing_key: SealingKey | None = None) -> FileEntry:
    """Write flat tensors to one file of a step folder."""
    return write_stream(path, {key: values.numel() for key, values in tensors.items()}, tensors.values(), sealing_key)


def write_step_folder(
    folder: Path,
    tensors: dict[str, Tensor],
    *,
    slices: int = 1,
    cuts: tuple[int, ...] = (),
    padding: int = 0,
    protection: Protection = UNPROTECTED,
) -> Path:
    """Write logical tensors [outer, length, inner] cut into ``slices``, and each flat slice at ``cuts``.

    Args:
        folder: to be made.
        tensors: by name.
        slices: tensor-parallel ranks that wrote it.
        cuts: places at which every flat slice is divided into fragments, one file each.
        padding: indices that the last slice reaches beyond ``length`` (only with outer 1).
        protection: keys to encrypt and sign with.
    """
    folder.mkdir(parents=True)
    contents: dict[str, dict[str, Tensor]] = {}
    fragments: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for name, whole in tensors.items():
        outer, length, inner = whole.shape
        slice_length = (length + padding) // slices
        for index in range(slices):
            flat = whole[:, index * slice_length : (index + 1) * slice_length].reshape(-1)
            for fragment in _fragments(name, index, len(flat), cuts):
                piece = flat[fragment["start"] : fragment["start"] + fragment["numel"]]
                for offset, state in enumerate(STATES):
                    contents.setdefault(fragment["file"], {})[f"{state}/{name}"] = piece + 1000 * offset
                fragments.append(fragment)
        shape = [outer * length, inner]
        entries.append(
            {"name": name, "shape": shape, "outer": outer, "length": length, "inner": inner}
            | {"num_slices": slices, "slice_length": slice_length, "states": STATES}
        )
    key = protection.sealing_key
    files = [write_tensors(folder / file, values, key) for file, values in contents.items()]
    encryption = protection.encryption()
    manifest = {
        "format": "gptdist-checkpoint",
        "version": 1,
        "progress": {
            "step": int(folder.name.removeprefix("step_")),
            "consumed_samples": 24,
            "consumed_tokens": 768,
            "optimizer_step": 3,
            "loss": 5.5,
        },
        "config": {"model": dict(GPT2)},
        "tokenizer_fingerprint": "0" * 64,
        "data_fingerprints": {},
        "layout": {"world_size": 1, "zero_stage": 1, **dataclasses.asdict(Layout(slices, 1, 1, 1))},
        "tensors": entries,
        "fragments": fragments,
        "files": [entry.tree() for entry in files],
        "encryption": None if encryption is None else encryption.tree(),
    }
    write_manifest(folder, Manifest.from_tree(manifest), protection)
    return folder


def _fragments(name: str, slice_index: int, numel: int, cuts: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Yield the manifest's entries of one flat slice that is divided at ``cuts``."""
    borders = [0, *(cut for cut in cuts if cut < numel), numel]
    for number, (begin, end) in enumerate(pairwise(borders)):
        if begin < end:
            file = f"rank_{slice_index * 100 + number:05d}.safetensors"
            yield {"tensor": name, "slice_index": slice_index, "start": begin, "numel": end - begin, "file": file}


def numbered(outer: int, length: int, inner: int) -> Tensor:
    """Return a tensor whose values say where they are."""
    return torch.arange(outer * length * inner, dtype=torch.float32).view(outer, length, inner)


def write_checkpoint(checkpoints: Path, step: int, cuts: tuple[int, ...] = (5,), **progress: Any) -> Path:
    """Write a small whole checkpoint of ``step``, cut at ``cuts``, with these facts in its manifest's progress."""
    folder = write_step_folder(checkpoints / f"step_{step:08d}", {"x": numbered(1, 6, 4) + step}, cuts=cuts)
    tree = json.loads((folder / "manifest.json").read_text())
    tree["progress"] |= {"step": step, "consumed_samples": 8 * step, **progress}
    rewrite_manifest(folder, tree)
    return folder


def rewrite_manifest(step: Path, tree: dict[str, Any]) -> None:
    """Put ``tree`` in the place of a manifest, with hashes that fit, as somebody would who knows the format."""
    content = json.dumps(tree).encode()
    (step / "manifest.json").write_bytes(content)
    hashes = [(hashlib.sha256(content).hexdigest(), "manifest.json")]
    hashes += [(entry["sha256"], entry["name"]) for entry in tree["files"]]
    (step / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for digest, name in hashes))
