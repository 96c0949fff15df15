"""What the user says about a launch on Kubernetes, and what is wrong with it."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

Kind = Literal["jobset", "trainjob", "job"]

LABEL_LENGTH = 63
"""Of a DNS-1123 label, which names of pods and hosts are."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_GENERATED = 6
"""Characters that Kubernetes adds to a pod's name."""


@dataclass(frozen=True)
class Volume:
    """A claim, and where pods have it."""

    claim: str
    mount: str


@dataclass(frozen=True)
class ClusterOptions:
    """Where and as what a run is started."""

    kind: Kind
    name: str
    """Of everything that is made."""

    image: str
    nodes: int
    volumes: tuple[Volume, ...]
    namespace: str | None = None
    gpus: int = 0
    """Of a pod."""

    gpu_resource: str = "nvidia.com/gpu"
    cpus: str | None = None
    memory: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of every rank."""

    working_dir: str | None = None
    """What relative paths of the config start from; default: the first volume."""

    python: str = "python3"
    """Of the image."""

    port: int = 29400
    """On which the nodes meet."""

    @property
    def folder(self) -> PurePosixPath:
        """The pods' working folder."""
        return PurePosixPath(self.working_dir or self.volumes[0].mount)

    @property
    def head(self) -> str:
        """Name of the pod of node 0, as the others reach it."""
        return f"{self.name}-0.{self.name}" if self.kind == "job" else f"{self.name}-node-0-0.{self.name}"

    def problems(self, run_folder: Path) -> list[str]:
        """Return every value that Kubernetes would refuse, or under which a run would not last.

        Args:
            run_folder: of the run, as its config says it.
        """
        bad = self._name_problems() + self._volume_problems() + self._value_problems()
        if bad:
            return bad
        if not self.folder.is_absolute():
            return [f"--working-dir: must be an absolute path in the pods, got '{self.folder}'"]
        run = self.folder / run_folder
        if not any(run.is_relative_to(volume.mount) for volume in self.volumes):
            mounts = ", ".join(volume.mount for volume in self.volumes)
            bad.append(f"run_dir: {run} is on no volume ({mounts}), and would go with its pods; set run_dir")
        return bad

    def _value_problems(self) -> list[str]:
        bad = []
        if not self.image or re.search(r"\s|\$\(", self.image):
            bad.append(f"--image: must be a name of an image, got '{self.image}'")
        if self.gpus < 0:
            bad.append(f"--gpus: must be at least 0, got {self.gpus}")
        if not 1 <= self.port <= 65535:
            bad.append(f"--port: must be from 1 to 65535, got {self.port}")
        for option, quantity in (("--cpus", self.cpus), ("--memory", self.memory)):
            if quantity is not None and not _QUANTITY.fullmatch(quantity):
                bad.append(f"{option}: must be a quantity such as 8 or 64Gi, got '{quantity}'")
        for variable, _ in self.environment:
            if not _VARIABLE.fullmatch(variable):
                bad.append(f"--env: '{variable}' is no name of a variable; give NAME=VALUE")
        return bad

    def _name_problems(self) -> list[str]:
        bad = []
        longest = longest_name(self.kind, self.nodes)
        if not _LABEL.fullmatch(self.name) or len(self.name) > longest:
            bad.append(
                f"--name: '{self.name}' is no DNS-1123 label of up to {longest} characters; "
                f"use '{legal_name(self.name, longest)}'"
            )
        if self.namespace is not None and not (
            _LABEL.fullmatch(self.namespace) and len(self.namespace) <= LABEL_LENGTH
        ):
            bad.append(f"--namespace: '{self.namespace}' is no DNS-1123 label; use '{legal_name(self.namespace)}'")
        return bad

    def _volume_problems(self) -> list[str]:
        if not self.volumes:
            return ["--volume: none is given, and the run's folder would go with its pods; give CLAIM:MOUNT"]
        bad, mounts = [], [volume.mount for volume in self.volumes]
        for index, volume in enumerate(self.volumes):
            where = f"--volume {volume.claim}:{volume.mount}"
            if not _SUBDOMAIN.fullmatch(volume.claim):
                bad.append(f"{where}: '{volume.claim}' is no name of a claim; use '{legal_name(volume.claim)}'")
            if not volume.mount.startswith("/") or ":" in volume.mount or volume.mount == "/":
                bad.append(f"{where}: must be mounted at an absolute path other than /, got '{volume.mount}'")
            elif volume.mount in mounts[:index]:
                bad.append(f"{where}: another volume is mounted there too; choose another path")
        return bad


def longest_name(kind: Kind, nodes: int) -> int:
    """Return how long a name may be so that the names of its pods are legal."""
    suffix = f"-{nodes - 1}" if kind == "job" else f"-node-0-{nodes - 1}"
    return LABEL_LENGTH - len(suffix) - _GENERATED


def legal_name(text: str, longest: int = LABEL_LENGTH) -> str:
    """Return the DNS-1123 label nearest to ``text``."""
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return label[:longest].rstrip("-") or "gptdist"


def parse_volume(word: str) -> Volume:
    """Return the volume of ``CLAIM:MOUNT``."""
    claim, _, mount = word.partition(":")
    return Volume(claim, mount)
