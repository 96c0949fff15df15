"""Accelerators and networks that a plan is made for: a YAML file each, from data sheets, and whatever a user adds."""

import difflib
from pathlib import Path
from typing import Literal

from gptdist.config.load import CheckedT
from gptdist.config.section import Section
from gptdist.config.shipped import shipped_folder
from gptdist.config.source import read_tree
from gptdist.errors import ConfigError

FOLDER = "devices"
"""Of the shipped configs; networks are in a folder of it."""

OWN = Path("configs", FOLDER)
"""Likewise in the working folder: a user's own, looked at first."""

Architecture = Literal["volta", "ampere", "hopper", "blackwell", "cdna3", "cpu"]
"""Decides which constants of the calibration count."""


class PeakFlops(Section):
    """Dense FLOP/s of matrix multiplication by number format; what is unset the device does not compute in."""

    fp32: float
    fp16: float | None = None
    bf16: float | None = None
    fp8: float | None = None


class Device(Section):
    """One accelerator and the node that it is in; a CPU is the whole node, shared by its ranks."""

    name: str = ""
    """Of its file."""

    architecture: Architecture
    memory_bytes: int
    """Of the device; of a CPU node, its main memory."""

    peak_flops: PeakFlops
    memory_bandwidth: float
    """Bytes a second."""

    num_multiprocessors: int = 0
    """Units that tiles of a matrix product are dealt out to; 0 where tiles need not be counted."""

    devices_per_node: int
    link_bandwidth: float
    """Bytes a second in each direction between a device and the others of its node."""

    network_bandwidth: float
    """Likewise to other nodes, for each device, where no network is named."""

    host_memory_bytes: int
    """Main memory of a node."""

    host_link_bandwidth: float
    """Bytes a second between a device and main memory."""

    storage_bandwidth: float = 1.2e9
    """Bytes a second that a node writes to shared storage; default: what 48 nodes reached together when BLOOM-176B was
    saved (2.3 TB in 40 s)."""

    power_watts: float
    """Of a device under load; fans, host and network of the node are not in it."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        numbers = {name: value for name, value in self.tree().items() if isinstance(value, int | float)}
        numbers |= {f"peak_flops.{name}": value for name, value in self.peak_flops.tree().items() if value is not None}
        if self.num_multiprocessors == 0:
            del numbers["num_multiprocessors"]
        return [f"{name}: must be above 0, got {value}" for name, value in numbers.items() if value <= 0]

    def flops(self, precision: str) -> float | None:
        """Return peak FLOP/s in ``precision``; None where the device lacks it."""
        value: float | None = getattr(self.peak_flops, precision)
        return value

    def shared(self, ranks_per_node: int) -> "Device":
        """Return what one of ``ranks_per_node`` ranks has: of a GPU node a device, of a CPU node its share."""
        if self.architecture != "cpu" or ranks_per_node == 1:
            return self
        peaks = {name: value / ranks_per_node for name, value in self.peak_flops.tree().items() if value is not None}
        return self.model_copy(
            update={
                "peak_flops": PeakFlops(**peaks),
                "memory_bytes": self.memory_bytes // ranks_per_node,
                "memory_bandwidth": self.memory_bandwidth / ranks_per_node,
                "link_bandwidth": self.link_bandwidth / ranks_per_node,
            }
        )


class Network(Section):
    """What connects nodes."""

    name: str = ""
    node_bandwidth: float
    """Bytes a second in each direction of all ports of a node together."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        return [] if self.node_bandwidth > 0 else [f"node_bandwidth: must be above 0, got {self.node_bandwidth}"]


def device_names() -> list[str]:
    """Return the names of all known devices."""
    return _names("")


def network_names() -> list[str]:
    """Return the names of all known networks."""
    return _names("networks")


def find_device(name: str) -> Device:
    """Return the device of a name, or of the path of a YAML file.

    Raises:
        ConfigError: there is none; the nearest names are told. Or its file has problems.
    """
    return _read(Device, _find(name, "", "--device"))


def find_network(name: str) -> Network:
    """Return the network of a name, or of the path of a YAML file.

    Raises:
        ConfigError: as for a device.
    """
    return _read(Network, _find(name, "networks", "--interconnect"))


def _read(kind: type[CheckedT], path: Path) -> CheckedT:
    """Return what a file holds, checked, with the file's name."""
    found = kind.from_tree({"name": path.stem} | read_tree(path), origin=str(path))
    problems = found.problems()
    if problems:
        raise ConfigError(f"{path}: {problem}" for problem in problems)
    return found


def _folders(part: str) -> list[Path]:
    return [OWN / part, shipped_folder() / FOLDER / part]


def _names(part: str) -> list[str]:
    return sorted({path.stem for folder in _folders(part) for path in folder.glob("*.yaml")})


def _find(name: str, part: str, option: str) -> Path:
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    known = _names(part)
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.3) or known
        raise ConfigError(
            [f"{option}: no '{name}'; the nearest are {', '.join(near)}; or name a .yaml file of your own"]
        )
    return next(path for folder in _folders(part) if (path := folder / f"{name}.yaml").is_file())
