"""Seconds of a training step on its slowest rank, by what takes them."""

from collections import Counter
from dataclasses import dataclass, fields
from functools import lru_cache

from gptdist.config.activations import LayerSizes
from gptdist.config.model import ModelConfig
from gptdist.model.arithmetic import num_parameters
from gptdist.plan.constants import Constants
from gptdist.plan.device import Device, Network
from gptdist.plan.layer_time import LayerTime, Machine, layer_time, output_time
from gptdist.plan.workload import Workload

FULLY_SHARDED = 3
"""ZeRO stage from which on weights are gathered for each micro batch."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step."""

    matmul: float
    """Products with the layers' matrices."""

    attention: float
    output: float
    """Output projection and loss."""

    elementwise: float
    """Norms, activations, biases, dropout, residuals, casts: bound by memory."""

    launch: float
    """What kernels take beyond their work."""

    tensor_parallel: float
    context_parallel: float
    expert_parallel: float
    pipeline_bubble: float
    pipeline_transfer: float
    data_parallel: float
    """Gradients, and ZeRO-3's weights, as far as nothing hides them."""

    optimizer: float
    checkpoint: float = 0.0
    """Of a save, spread over the steps between two."""

    @property
    def total(self) -> float:
        """All together."""
        return sum(getattr(self, field.name) for field in fields(self))

    def tree(self) -> dict[str, float]:
        """Return each part by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@lru_cache(maxsize=64)
def layer_kinds(model: ModelConfig) -> tuple[tuple[LayerSizes, int], ...]:
    """Return the kinds of layers of a model, and how many are alike."""
    return tuple(Counter(LayerSizes.of(model, layer) for layer in range(model.num_layers)).items())


@lru_cache(maxsize=64)
def _parameters(model: ModelConfig) -> tuple[int, int]:
    """Return values of all, and of the experts' matrices among them."""
    if model.moe is None:
        return num_parameters(model), 0
    up = model.expert_size * (2 if model.is_gated else 1)
    experts = model.num_expert_layers * model.moe.num_experts * model.hidden_size * (up + model.expert_size)
    return num_parameters(model), experts


def rank_parameters(workload: Workload) -> float:
    """Return the parameters of one rank, on average over pipeline stages."""
    layout = workload.layout
    everything, experts = _parameters(workload.model)
    held = everything - experts + experts / layout.expert_parallel_size
    return held / (layout.tensor_parallel_size * layout.pipeline_parallel_size)


def step_time(workload: Workload, device: Device, network: Network | None, constants: Constants) -> StepTime:
    """Return seconds of a step by what takes them.

    Args:
        workload: of the step.
        device: that one rank has.
        network: between nodes; None is the device's own.
        constants: of the calibration.
    """
    machine = Machine(device, network, constants, workload)
    layout, count = workload.layout, workload.num_micro_batches
    stages, layers = layout.pipeline_parallel_size, LayerTime()
    for sizes, number in layer_kinds(workload.model):
        layers += layer_time(workload, machine, sizes).times(number)
    output = output_time(workload, machine)
    mean = layers.times(1 / workload.model.num_layers)
    share, with_output = _slowest_stage(workload, mean.total, output)
    work = mean.times(share * count)
    busy = work.total + (output * count if with_output else 0.0)
    bubble = (layers.total + output) / stages * (stages - 1) / workload.virtual_stages
    return StepTime(
        matmul=work.matmul,
        attention=work.attention,
        output=output * count if with_output else 0.0,
        elementwise=work.elementwise,
        launch=work.launch,
        tensor_parallel=work.tensor_parallel,
        context_parallel=work.context_parallel,
        expert_parallel=work.expert_parallel,
        pipeline_bubble=bubble,
        pipeline_transfer=_transfers(workload, machine) if stages > 1 else 0.0,
        data_parallel=_data_parallel(workload, machine, busy + bubble),
        optimizer=_update(workload, machine),
    )


def _slowest_stage(workload: Workload, layer: float, output: float) -> tuple[float, bool]:
    """Return how many layers the slowest stage has, and whether it has the output projection."""
    stages = workload.layout.pipeline_parallel_size
    if stages == 1:
        return workload.model.num_layers, True
    last = workload.layers_of_stage(stages - 1)
    most = max(workload.layers_of_stage(stage) for stage in range(stages - 1))
    return (last, True) if last * layer + output >= most * layer else (most, False)


def _transfers(workload: Workload, machine: Machine) -> float:
    """Return seconds in which activations and their gradients pass on between stages."""
    layout = workload.layout
    sent = 2.0 * workload.tokens * workload.model.hidden_size * workload.value_bytes
    if workload.sequence_parallel:
        sent /= layout.tensor_parallel_size
    is_near = layout.world_size <= machine.device.devices_per_node
    rate = machine.links if is_near else machine.network
    return workload.num_micro_batches * workload.virtual_stages * machine.constants.transfer_exposure * sent / rate


def _data_parallel(workload: Workload, machine: Machine, compute: float) -> float:
    """Return exposed seconds of gradients and, at ZeRO-3, of weights."""
    layout, constants = workload.layout, machine.constants
    copies = layout.num_copies
    if copies == 1:
        return 0.0
    rate = machine.group_bandwidth(copies, layout.tensor_parallel_size)
    values = rank_parameters(workload) * workload.value_bytes * (copies - 1) / copies
    if workload.zero_stage < FULLY_SHARDED:
        seconds = 2.0 * values / rate  # reduced, and gathered again: as gradients or as new weights
        return seconds * (constants.gradient_exposure if workload.software.overlaps_gradients else 1.0)
    if workload.software.gathers_eagerly:
        rate *= constants.eager_gathers
    seconds = 3.0 * values * workload.num_micro_batches / rate  # gathered forward and backward, gradients reduced
    hidden = min(seconds, compute)
    return seconds - hidden + constants.gradient_exposure * hidden


def _update(workload: Workload, machine: Machine) -> float:
    """Return seconds of the optimizer's update."""
    parts = workload.layout.num_copies if workload.zero_stage else 1
    values = rank_parameters(workload) / parts
    return values * machine.constants.optimizer_bytes / machine.device.memory_bandwidth
