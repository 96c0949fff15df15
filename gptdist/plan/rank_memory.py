"""Bytes of the ranks of each pipeline stage, by component, on the device of a plan."""

from dataclasses import dataclass

from gptdist.config.run import RunConfig
from gptdist.mesh.layout import Layout
from gptdist.model.memory import step_memory
from gptdist.plan.constants import Constants
from gptdist.plan.device import Device

COMPONENTS = ("weights", "gradients", "optimizer", "activations", "logits", "communication", "framework")
"""In the order in which they are shown."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one rank at the moment of a step that needs most."""

    stage: int
    moment: str
    """``loss`` of the last micro batch, end of ``backward``, or ``update``."""

    weights: int
    gradients: int
    optimizer: int
    """Master weights and moments."""

    activations: int
    logits: int
    communication: int
    """Buffers that gradients and weights go through, and of the update."""

    framework: int
    """What no tensor explains: driver, kernels, communicators; on a CPU interpreter and libraries."""

    host: int = 0
    """Beside these, bytes in the machine's memory of what is offloaded."""

    @property
    def total(self) -> int:
        """All together."""
        return sum(getattr(self, name) for name in COMPONENTS)

    def tree(self) -> dict[str, int | str]:
        """Return it as plain data."""
        parts: dict[str, int | str] = {"stage": self.stage, "moment": self.moment}
        return parts | {name: getattr(self, name) for name in COMPONENTS} | {"total": self.total, "host": self.host}


def framework_bytes(layout: Layout, constants: Constants) -> float:
    """Return bytes that no tensor explains: of the driver, and of a communicator for each axis and for all ranks."""
    axes = (layout.num_copies, layout.tensor_parallel_size, layout.pipeline_parallel_size, layout.world_size)
    return constants.framework_bytes + constants.communicator_bytes * sum(size > 1 for size in axes)


def rank_memory(
    config: RunConfig, layout: Layout, device: Device, constants: Constants, *, value_bytes: int, stage: int
) -> RankMemory:
    """Return bytes of a rank of ``stage``; the config has no problems."""
    on_gpu = device.architecture != "cpu"
    needed = step_memory(config, layout, on_gpu=on_gpu, value_bytes=value_bytes, stage=stage)
    moments = {"loss": needed.loss, "backward": needed.backward, "update": needed.update}
    name = max(moments, key=lambda name: moments[name].total)
    peak = moments[name]
    return RankMemory(
        stage=stage,
        moment=name,
        weights=peak.weights,
        gradients=peak.gradients,
        optimizer=peak.optimizer,
        activations=peak.activations,
        logits=peak.buffers if name == "loss" else 0,
        communication=0 if name == "loss" else peak.buffers,
        framework=round(framework_bytes(layout, constants) if on_gpu else constants.process_bytes),
        host=needed.host,
    )
