"""What a quantization is asked for; no torch, so that bad values are refused at once."""

from dataclasses import dataclass
from pathlib import Path

SCHEMES = {"int8": 8, "int4": 4}
"""Bits of a weight, by scheme."""

TORCHAO = "torchao"
GPTQ = "llmcompressor-gptq"
BACKENDS = (TORCHAO, GPTQ)

GROUP_SIZES = (32, 64, 128)


@dataclass(frozen=True)
class QuantizeOptions:
    """How weights are rounded."""

    scheme: str
    group_size: int | None = None
    """Weights that share a scale; int4 only, where none is 32. int8 has a scale a row."""

    backend: str = TORCHAO
    python: Path | None = None
    """Interpreter of the environment that the GPTQ backend lives in."""

    overwrite: bool = False
    """Whether an earlier folder of gptdist is replaced."""

    @property
    def bits(self) -> int:
        """Bits of a weight."""
        return SCHEMES[self.scheme]

    @property
    def weights_a_scale(self) -> int:
        """Group size of int4."""
        return self.group_size or GROUP_SIZES[0]

    def problems(self) -> list[str]:
        """Return every value that is out of its range or contradicts another."""
        bad = []
        if self.scheme not in SCHEMES:
            bad.append(f"--scheme: '{self.scheme}' is unknown; take of {', '.join(SCHEMES)}")
        if self.group_size is not None and self.group_size not in GROUP_SIZES:
            bad.append(f"--group-size: {self.group_size} is none of {', '.join(map(str, GROUP_SIZES))}; take one")
        if self.scheme == "int8" and self.group_size is not None:
            bad.append(f"--group-size: {self.group_size} is given with int8, which has a scale a row; leave it out")
        if self.backend not in BACKENDS:
            bad.append(f"--backend: '{self.backend}' is unknown; take of {', '.join(BACKENDS)}")
        if self.backend == GPTQ and self.scheme != "int4":
            bad.append(f"--backend: {GPTQ} makes int4, not {self.scheme}; add --scheme int4")
        if self.backend == GPTQ and self.python is None:
            bad.append(f"--python: {GPTQ} runs in an environment of its own; name its interpreter")
        if self.backend != GPTQ and self.python is not None:
            bad.append(f"--python: is for --backend {GPTQ}; leave it out")
        if self.python is not None and not self.python.is_file():
            bad.append(f"--python: '{self.python}' does not exist; change the path")
        return bad
