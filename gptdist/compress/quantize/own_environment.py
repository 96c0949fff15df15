"""Run a quantizer that cannot be installed beside gptdist, by the interpreter of its own environment."""

import os
import subprocess
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from gptdist.compress.quantize import gptq_script
from gptdist.errors import ExportError

_LAST_LINES = 3


def write_gptq(python: Path, source: Path, target: Path, calibration: np.ndarray, group_size: int) -> None:
    """Have llm-compressor write ``target`` from the folder ``source``.

    Args:
        python: interpreter of an environment with llmcompressor.
        source: a Hugging Face folder.
        target: folder to write; its parent exists.
        calibration: token ids [n, s] that it looks at.
        group_size: weights that share a scale.

    Raises:
        ExportError: the process failed; the text ends with what it said last.
    """
    tokens = source / ".calibration.safetensors"
    save_file({"input_ids": calibration.astype(np.int32)}, tokens)
    command = [str(python), str(Path(gptq_script.__file__)), *map(str, (source, target, tokens, group_size))]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["HF_HUB_OFFLINE"] = "1"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    tokens.unlink()
    if done.returncode:
        said = " / ".join(done.stderr.strip().splitlines()[-_LAST_LINES:]) or "nothing"
        raise ExportError(
            f"{python}: GPTQ ended with status {done.returncode}, saying {said}; try the environment by itself"
        )
