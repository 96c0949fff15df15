"""Which weights are to become zero; no torch, so that bad values are refused at once."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gptdist.compress.calibration import CalibrationOptions

Method = Literal["magnitude", "wanda", "sparsegpt"]
Scope = Literal["layer", "global"]


@dataclass(frozen=True)
class Pattern:
    """Of every ``of`` weights in a row, ``kept`` stay."""

    kept: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Pattern | None":
        """Return the pattern that ``text``, such as ``2:4``, stands for; none if it stands for none."""
        found = re.fullmatch(r"(\d+):(\d+)", text)
        pattern = None if found is None else cls(int(found[1]), int(found[2]))
        return pattern if pattern is not None and 0 < pattern.kept < pattern.of else None

    @property
    def ratio(self) -> float:
        """Share of weights that become zero."""
        return 1.0 - self.kept / self.of

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}"


@dataclass(frozen=True)
class WeightOptions:
    """What is made zero: exactly one of ``ratio``, ``threshold`` and ``pattern`` says how much."""

    method: Method = "magnitude"
    ratio: float | None = None
    """Share of each matrix, or with scope ``global`` of all of them together, that becomes zero."""

    threshold: float | None = None
    """Weights of a smaller absolute value become zero."""

    pattern: str | None = None
    """``N:M``: of every M weights of a row, next to each other, N stay."""

    scope: Scope = "layer"
    """What weights are compared within: each matrix, or all."""

    skip_layers: str = ""
    """Numbers and ranges of layers that stay as they are, from 0, such as ``0,10-11``."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    """Of the methods that look at activations."""

    @property
    def looks_at_data(self) -> bool:
        """Whether activations decide, or weights alone."""
        return self.method != "magnitude"

    @property
    def groups(self) -> Pattern | None:
        """The pattern, if there is one."""
        return None if self.pattern is None else Pattern.parse(self.pattern)

    @property
    def share(self) -> float | None:
        """Share of weights that become zero; none where a threshold decides."""
        return self.groups.ratio if self.groups is not None else self.ratio

    def problems(self) -> list[str]:
        """Return everything that is out of its range or contradicts something else."""
        bad = self._amount_problems()
        if self.scope == "global" and self.looks_at_data:
            bad.append(f"--scope: {self.method} compares within rows and blocks; use layer, or --method magnitude")
        if self.scope == "global" and self.pattern is not None:
            bad.append(f"--scope: {self.pattern} is a rule for every few weights; use layer, or --ratio")
        if self.scope == "global" and self.threshold is not None:
            bad.append("--scope: a threshold compares with itself alone; leave out --scope")
        try:
            self.skipped()
        except ValueError:
            bad.append(f"--skip-layers: '{self.skip_layers}' is no list of layers; write it like 0,10-11")
        return bad + self.calibration.problems()

    def _amount_problems(self) -> list[str]:
        given = {"--ratio": self.ratio, "--threshold": self.threshold, "--pattern": self.pattern}
        named = [name for name, value in given.items() if value is not None]
        bad = []
        if not named:
            bad.append("--ratio: how much is to become zero? give one of --ratio, --threshold, --pattern")
        if self.threshold is not None and len(named) > 1:
            bad.append(f"--threshold: contradicts {named[0] if named[0] != '--threshold' else named[1]}; give one")
        if self.ratio is not None and not 0.0 < self.ratio < 1.0:
            bad.append(f"--ratio: must be above 0 and below 1, got {self.ratio:g}; 0.5 makes half of the weights zero")
        if self.threshold is not None and not 0.0 < self.threshold < float("inf"):
            bad.append(f"--threshold: must be above 0, got {self.threshold:g}")
        if self.threshold is not None and self.looks_at_data:
            bad.append(f"--threshold: is for magnitude, {self.method} takes --ratio or --pattern; give one of these")
        pattern = self.groups
        if self.pattern is not None and pattern is None:
            bad.append(f"--pattern: must be N:M with N above 0 and below M, such as 2:4, got '{self.pattern}'")
        if pattern is not None and self.ratio is not None and abs(pattern.ratio - self.ratio) > 1e-9:
            bad.append(
                f"--ratio: {self.ratio:g} contradicts --pattern {pattern}, by which {pattern.ratio:g} become zero; "
                f"leave out one of them"
            )
        return bad

    def model_problems(self, num_layers: int, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Return what does not go with a model.

        Args:
            num_layers: of the model.
            shapes: of the matrices that are to be pruned, by name; the last size is that of a row.
        """
        bad = [
            f"--skip-layers: layer {layer} of a model of {num_layers}, whose last one is {num_layers - 1}; leave it out"
            for layer in sorted(self.skipped())
            if layer >= num_layers
        ]
        if not bad and not shapes:
            bad.append(f"--skip-layers: '{self.skip_layers}' leaves no matrix to prune; skip fewer layers")
        pattern = self.groups
        if pattern is not None:
            odd = {shape[-1]: name for name, shape in list(shapes.items())[::-1] if shape[-1] % pattern.of}
            bad += [
                f"--pattern: {pattern} needs rows of a multiple of {pattern.of}, those of {name} have {width} weights; "
                f"skip the layer or take another pattern"
                for width, name in sorted(odd.items())
            ]
        return bad

    def skipped(self) -> set[int]:
        """Return the layers that stay as they are."""
        return set(_numbers(self.skip_layers))

    def facts(self) -> dict[str, str]:
        """Return what was done, by name, for people and records."""
        given = {
            "method": self.method,
            "ratio": None if self.share is None else f"{self.share:g}",
            "threshold": None if self.threshold is None else f"{self.threshold:g}",
            "pattern": self.pattern,
            "scope": None if self.looks_at_data or self.pattern or self.threshold else self.scope,
            "skipped layers": self.skip_layers or None,
        }
        if self.looks_at_data:
            of = self.calibration
            given["calibration"] = f"{of.sequences} sequences of {of.length} tokens, seed {of.seed}"
        return {name: value for name, value in given.items() if value is not None}


UnitKind = Literal["neurons", "groups"]
UNIT_KINDS: tuple[UnitKind, ...] = ("neurons", "groups")


@dataclass(frozen=True)
class UnitOptions:
    """What is cut out: exactly one of ``ratio`` and ``threshold`` says how much."""

    norm: Literal["l1", "l2"] = "l2"
    """A unit's size: mean of absolute values (L1), or root of the mean of squares (L2), of all its weights."""

    ratio: float | None = None
    """Share of each layer's units of a kind that goes, the smallest first."""

    threshold: float | None = None
    """Units of a smaller size go, wherever they are; at least one of each kind stays in each layer."""

    units: tuple[str, ...] = UNIT_KINDS
    """``neurons`` of feed-forward layers, and query ``groups`` with their heads."""

    run_config: Path | None = None
    """Where to write the config of a run that trains the smaller model on."""

    def problems(self) -> list[str]:
        """Return everything that is out of its range or contradicts something else."""
        bad = []
        if (self.ratio is None) == (self.threshold is None):
            bad.append("--ratio, --threshold: one of them says how much is to go; give one, not both")
        if self.ratio is not None and not 0.0 < self.ratio < 1.0:
            bad.append(f"--ratio: must be above 0 and below 1, got {self.ratio:g}")
        if self.threshold is not None and not 0.0 < self.threshold < float("inf"):
            bad.append(f"--threshold: must be above 0, got {self.threshold:g}")
        bad += [
            f"--units: '{kind}' is none; use {' or '.join(UNIT_KINDS)}" for kind in self.units if kind not in UNIT_KINDS
        ]
        return bad if self.units else [*bad, f"--units: names none; use {' or '.join(UNIT_KINDS)}"]


def _numbers(text: str) -> Iterable[int]:
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(part)
        yield from range(int(first), int(last or first) + 1)
