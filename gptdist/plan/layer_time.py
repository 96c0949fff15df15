"""Seconds that one rank takes for one micro batch in one layer, forward and backward, by kind of work.

Letters: T tokens of a micro batch on a rank, h hidden, f feed-forward width, t tensor-parallel size, s sequence.
Products of matrices are counted tile by tile: a device deals tiles of 128 x 256 out to its units in waves, and the last
wave takes as long as a full one (tile and wave quantization).
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache

from gptdist.config.activations import LayerSizes
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.plan.constants import Constants
from gptdist.plan.device import Device, Network
from gptdist.plan.workload import Workload

TILES = ((128, 256), (256, 128), (128, 128))
SMALL_TILE = 0.93
"""What a tile of 128 x 128 reaches of the others: it loads more for each product."""

LOGIT_BYTES = 32
"""Bytes that a cross-entropy moves for each logit: eight passes in fp32."""

HEAD_ALIGNMENT = 8
"""Values of a head that matrix units take at a time in 16 bits."""

FORWARD_AND_BACKWARD = 3
"""Products of a matrix in a step: its output, and the gradients of input and weights."""


@dataclass(frozen=True)
class LayerTime:
    """Seconds by kind of work."""

    matmul: float = 0.0
    attention: float = 0.0
    elementwise: float = 0.0
    tensor_parallel: float = 0.0
    context_parallel: float = 0.0
    expert_parallel: float = 0.0
    launch: float = 0.0

    @property
    def total(self) -> float:
        """All together."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __add__(self, other: "LayerTime") -> "LayerTime":
        """Add kind by kind."""
        return LayerTime(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def times(self, factor: float) -> "LayerTime":
        """Multiply each kind."""
        return LayerTime(*(getattr(self, field.name) * factor for field in fields(self)))


@lru_cache(maxsize=65536)
def wave_fraction(rows: float, columns: float, units: int) -> float:
    """Return which fraction of the tiles' room a product of ``rows`` x ``columns`` fills on so many units."""
    if units == 0:
        return 1.0
    best = 0.0
    for height, width in TILES:
        tiles = math.ceil(rows / height) * math.ceil(columns / width)
        filled = rows * columns / (height * width) / (math.ceil(tiles / units) * units)
        best = max(best, filled * (SMALL_TILE if height == width else 1.0))
    return min(best, 1.0)


class Machine:
    """A device in its cluster, with the constants of the calibration."""

    def __init__(self, device: Device, network: Network | None, constants: Constants, workload: Workload) -> None:
        """Work out rates for ``workload``; without a network that of the device's file counts."""
        self.device, self.constants, self._workload = device, constants, workload
        per_device = network.node_bandwidth / device.devices_per_node if network else device.network_bandwidth
        self.network = per_device * constants.network_fraction
        self.links = device.link_bandwidth * constants.link_fraction
        fraction = self._matmul_fraction()
        outside_products = "bf16" if workload.precision == "fp8" else workload.precision
        self.peak = device.flops(outside_products) or device.peak_flops.fp32
        self.plain_flops = self.peak * fraction
        is_fast = workload.precision == "fp8" and not workload.software.rowwise_fp8
        self.flops = (device.flops("fp8") or self.peak) * fraction if is_fast else self.plain_flops

    def _matmul_fraction(self) -> float:
        match self.device.architecture:
            case "cpu":
                return self.constants.matmul_cpu
            case "ampere" | "volta":
                return self.constants.matmul_ampere
            case _:
                return self.constants.matmul_hopper

    def attention_fraction(self) -> float:
        """Return which fraction of the peak a fused kernel reaches."""
        constants, architecture = self.constants, self.device.architecture
        if architecture == "cpu":
            return constants.attention_cpu
        if architecture in ("ampere", "volta"):
            return constants.attention_ampere
        return constants.attention_cudnn if self._workload.software.attention == "cudnn" else constants.attention_flash2

    def matmul(self, rows: float, inner: float, columns: float, *, products: float, plain: bool = False) -> float:
        """Return seconds of ``products`` products with a matrix of ``inner`` x ``columns``.

        Two of them are those of the backward pass, the others as the forward pass does it.
        """
        units = self.device.num_multiprocessors
        seconds = 2.0 * rows * inner * columns / (self.plain_flops if plain else self.flops)
        forward = (products - 2) / wave_fraction(rows, columns, units)
        return seconds * (forward + 1 / wave_fraction(rows, inner, units) + 1 / wave_fraction(inner, columns, units))

    def group_bandwidth(self, ranks: int, inner: int) -> float:
        """Return bytes a second of a ring over ``ranks``, of which two neighbours are ``inner`` ranks apart.

        Those of one node share its ports: the more of a ring are in a node, the more of them it has.
        """
        together = min(ranks, max(1, self.device.devices_per_node // inner))
        return self.links if ranks <= together else min(self.links, together * self.network)


def layer_time(workload: Workload, machine: Machine, sizes: LayerSizes) -> LayerTime:
    """Return seconds of one layer."""
    layout, again = workload.layout, workload.recomputation
    tokens, tensor = workload.tokens, layout.tensor_parallel_size
    passes = FORWARD_AND_BACKWARD + again.rest
    residual = tokens * sizes.hidden / (tensor if workload.sequence_parallel else 1)
    moe = workload.model.moe if sizes.experts else None
    per_token = 1 if moe is None else moe.experts_per_token
    up = sizes.ffn * (2 if workload.model.is_gated else 1) * per_token
    inner = tokens * (2 * sizes.hidden + up) / tensor
    constants, bandwidth = machine.constants, machine.device.memory_bandwidth
    width = workload.value_bytes / 2
    moved = constants.elementwise_bytes * passes * (2 * residual + inner) * width
    if workload.precision == "fp8":
        moved += constants.fp8_cast_bytes * passes * inner
    return LayerTime(
        matmul=_matrices(workload, machine, sizes),
        attention=_attention(workload, machine, sizes),
        elementwise=moved / bandwidth,
        tensor_parallel=_tensor_parallel(workload, machine, sizes),
        context_parallel=_context_parallel(workload, machine, sizes),
        expert_parallel=_expert_parallel(workload, machine, sizes, per_token) if sizes.experts else 0.0,
        launch=constants.launch_seconds * passes if machine.device.architecture != "cpu" else 0.0,
    )


def _matrices(workload: Workload, machine: Machine, sizes: LayerSizes) -> float:
    model, tensor, tokens = workload.model, workload.layout.tensor_parallel_size, workload.tokens
    query, key = sizes.heads * sizes.head_size, sizes.groups * sizes.head_size
    products = FORWARD_AND_BACKWARD + workload.recomputation.matrices
    total = machine.matmul(tokens, sizes.hidden, (query + 2 * key) / tensor, products=products) if query else 0.0
    total += machine.matmul(tokens, query / tensor, sizes.hidden, products=products) if query else 0.0
    num_up = 2 if model.is_gated else 1
    if sizes.experts and model.moe is not None:
        experts = sizes.experts / (tensor * workload.layout.expert_parallel_size)
        rows = tokens * model.moe.experts_per_token / tensor / experts
        total += experts * machine.matmul(rows, sizes.hidden, sizes.ffn * num_up, products=products)
        return total + experts * machine.matmul(rows, sizes.ffn, sizes.hidden, products=products)
    if sizes.ffn:
        total += machine.matmul(tokens, sizes.hidden, sizes.ffn * num_up / tensor, products=products)
        total += machine.matmul(tokens, sizes.ffn / tensor, sizes.hidden, products=products)
    return total


def _attention(workload: Workload, machine: Machine, sizes: LayerSizes) -> float:
    """Of a fused kernel: 2 products forward, 5 backward, of the scores below the diagonal."""
    tensor, tokens, sequence = workload.layout.tensor_parallel_size, workload.tokens, workload.model.seq_length
    again, constants = workload.recomputation.attention, machine.constants
    query = sizes.heads * sizes.head_size
    seen = min(sizes.window or sequence, sequence)
    if workload.software.attention == "unfused":
        passes = FORWARD_AND_BACKWARD + again
        seconds = 4.0 * tokens * sequence * query / tensor * passes / (machine.peak * constants.attention_unfused)
        if sizes.head_size % HEAD_ALIGNMENT:
            seconds /= constants.unaligned_heads
        scores = tokens * sequence * sizes.heads / tensor
        return seconds + constants.score_bytes * passes * scores / machine.device.memory_bandwidth
    attended = seen - seen**2 / (2 * sequence)
    flops = 4.0 * tokens * attended * query / tensor * (3.5 + again)
    return flops / (machine.peak * machine.attention_fraction())


def _tensor_parallel(workload: Workload, machine: Machine, sizes: LayerSizes) -> float:
    """Four all-reduces a layer, or as many pairs of all-gather and reduce-scatter; two more to compute it again."""
    tensor = workload.layout.tensor_parallel_size
    if tensor == 1:
        return 0.0
    sent = 2.0 * (tensor - 1) / tensor * workload.tokens * sizes.hidden * workload.value_bytes
    seconds = (4 + 2 * workload.recomputation.rest) * sent / machine.group_bandwidth(tensor, 1)
    hidden = machine.constants.overlapped if workload.software.overlaps_tensor_parallel else 0.0
    return seconds * (1.0 - hidden)


def _context_parallel(workload: Workload, machine: Machine, sizes: LayerSizes) -> float:
    """Keys and values of all context-parallel ranks are gathered, and their gradients scattered."""
    context, tensor = workload.layout.context_parallel_size, workload.layout.tensor_parallel_size
    if context == 1:
        return 0.0
    gathered = 2.0 * workload.tokens * sizes.groups * sizes.head_size / tensor * workload.value_bytes * (context - 1)
    return (2 + workload.recomputation.attention) * gathered / machine.group_bandwidth(context, tensor)


def _expert_parallel(workload: Workload, machine: Machine, sizes: LayerSizes, per_token: int) -> float:
    """Tokens go to their experts and come back, forward and backward."""
    parts, tensor = workload.layout.expert_parallel_size, workload.layout.tensor_parallel_size
    if parts == 1:
        return 0.0
    sent = workload.tokens * per_token * sizes.hidden * workload.value_bytes * (parts - 1) / parts
    return (4 + 2 * workload.recomputation.rest) * sent / machine.group_bandwidth(parts, tensor)


def output_time(workload: Workload, machine: Machine) -> float:
    """Return seconds of the output projection and the loss, for one micro batch."""
    tensor, model = workload.layout.tensor_parallel_size, workload.model
    rows = padded_vocab_size(model.vocab_size, tensor) / tensor
    seconds = machine.matmul(workload.tokens, model.hidden_size, rows, products=FORWARD_AND_BACKWARD, plain=True)
    return seconds + workload.tokens * rows * LOGIT_BYTES / machine.device.memory_bandwidth
