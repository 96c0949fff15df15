"""Weights of a Hugging Face folder by name, in one file or several, with one tensor in memory at a time."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gptdist.checkpoint.manifest import plain_file_name
from gptdist.compress.pickled import load_pickled
from gptdist.compress.safetensors_export import INDEX_FILE, SINGLE_FILE
from gptdist.errors import ModelImportError

PICKLED_FILE = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"

_NUMBERS = (torch.float32, torch.float16, torch.bfloat16)
"""Formats whose values fp32 holds exactly."""

_BUFFERS = re.compile(r"(^|\.)((h\.\d+\.attn|layers\.\d+\.attention)\.(bias|masked_bias)|rotary_emb\.inv_freq)$")
"""Names of what is no weight: masks and frequencies that old files hold."""

_BASES = ("transformer.", "model.", "gpt_neox.")
"""What precedes the names of all but the output layer, and is missing where the model was saved without that."""


_OTHER_NAMES = {"embed_out.weight": "lm_head.weight"}
"""GPT-NeoX's output matrix, as transformers 5 calls it in memory."""


class HuggingFaceWeights:
    """The tensors of a folder; remembers which were read."""

    def __init__(self, folder: Path) -> None:
        """Look into ``folder``: safetensors first, then what torch pickled.

        Raises:
            ModelImportError: there are no weights, an index leads out of the folder, or a file is damaged.
        """
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._read: set[str] = set()
        self._of = self._names()
        self._has_base = any(name.startswith(_BASES) for name in self._of)

    @property
    def paths(self) -> list[Path]:
        """The files that hold the weights."""
        return [self.folder / name for name in sorted(set(self._of.values()))]

    def get(self, name: str) -> Tensor:
        """Return tensor ``name`` in fp32.

        Raises:
            ModelImportError: it is missing, or its numbers are no fp32, fp16 or bf16.
        """
        stored = name
        if not self._has_base:
            stored = next((name.removeprefix(base) for base in _BASES if name.startswith(base)), name)
        if stored not in self._of:
            stored = _OTHER_NAMES.get(stored, stored)
        if stored not in self._of:
            raise ModelImportError(f"{self.folder}: lacks '{name}'; take the config.json that belongs to the weights")
        self._read.add(stored)
        path = self.folder / self._of[stored]
        opened = self._open(self._of[stored])
        try:
            tensor: Tensor = opened[stored] if isinstance(opened, dict) else opened.get_tensor(stored)
        except (SafetensorError, KeyError):
            raise ModelImportError(f"{path}: lacks '{stored}', which the index puts there; take another copy") from None
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        if kind not in _NUMBERS:
            raise ModelImportError(f"{path}: '{stored}' is {kind}; only fp32, fp16 and bf16 can be imported")
        return tensor.float()

    def require_all_read(self, tied: tuple[str, str] | None) -> None:
        """Refuse weights that the model has no place for.

        Args:
            tied: names of the output matrix, which may be stored, and of the embedding that it must be equal to.

        Raises:
            ModelImportError: names the first of them.
        """
        if tied is not None and tied[0] in self._of and not torch.equal(*map(self.get, tied)):
            raise ModelImportError(
                f"{self.folder}: '{tied[0]}' is not '{tied[1]}', though config.json ties them; correct "
                f"tie_word_embeddings in a copy of it"
            )
        left = sorted(name for name in self._of if name not in self._read and not _BUFFERS.search(name))
        if left:
            raise ModelImportError(
                f"{self.folder}: holds {len(left)} tensors that config.json has no place for, such as '{left[0]}'; "
                f"take the config.json that belongs to the weights"
            )

    def _names(self) -> dict[str, str]:
        """Return the file of each tensor."""
        for single, index in ((SINGLE_FILE, INDEX_FILE), (PICKLED_FILE, PICKLED_INDEX)):
            if (self.folder / single).is_file():
                opened = self._open(single)
                return dict.fromkeys(opened if isinstance(opened, dict) else opened.keys(), single)
            if (self.folder / index).is_file():
                return _read_index(self.folder / index)
        raise ModelImportError(
            f"{self.folder}: holds none of {SINGLE_FILE}, {INDEX_FILE}, {PICKLED_FILE}, {PICKLED_INDEX}; "
            f"name a folder with weights"
        )

    def _open(self, name: str) -> Any:
        if name not in self._files:
            path = self.folder / name
            if name.endswith(".safetensors"):
                try:
                    self._files[name] = safe_open(path, framework="pt")
                except (OSError, SafetensorError) as error:
                    raise ModelImportError(f"{path}: cannot be opened ({error}); take another copy") from None
            else:
                self._files[name] = load_pickled(path)
                if not isinstance(self._files[name], dict):
                    raise ModelImportError(f"{path}: holds no names with tensors; take another copy")
        return self._files[name]


def _read_index(path: Path) -> dict[str, str]:
    try:
        names: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): plain_file_name(str(file)) for name, file in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelImportError(f"{path}: not an index of weights ({error}); take another copy") from None
