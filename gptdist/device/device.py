"""CPU or CUDA: what follows from the choice."""

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Literal

import torch

from gptdist.device import deepspeed_on_gloo
from gptdist.device.uncompiled import without_compiler
from gptdist.errors import TrainingError

DENSE_BF16_FLOPS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "V100": 125e12,
    "L40S": 362e12,
}
"""Peak dense 16-bit FLOP/s by a part of the device's name, from the makers' data sheets (V100: fp16)."""


@dataclass(frozen=True)
class Device:
    """Where tensors live and in which format the model computes."""

    kind: Literal["cpu", "cuda"]
    dtype: torch.dtype
    local_rank: int

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device("cpu") if self.kind == "cpu" else torch.device("cuda", self.local_rank)

    @property
    def backend(self) -> str:
        """Back end of torch.distributed."""
        return "gloo" if self.kind == "cpu" else "nccl"


def choose_device(kind: str, precision: str, local_rank: int) -> Device:
    """Return the device that ``kind`` and ``precision`` of the training section ask for.

    Raises:
        TrainingError: CUDA is asked for and there is none, or the device does not compute in that format.
    """
    has_cuda = torch.cuda.is_available()
    if kind == "cuda" and not has_cuda:
        raise TrainingError("training.device: cuda is asked for, but torch sees no CUDA device; use auto or cpu")
    use_cuda = has_cuda and kind != "cpu"
    formats = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    formats["auto"] = formats["bf16" if use_cuda else "fp32"]
    device = Device(kind="cuda" if use_cuda else "cpu", dtype=formats[precision], local_rank=local_rank)
    if use_cuda:
        torch.cuda.set_device(device.torch_device)
    check_format(device)
    return device


def check_format(device: Device) -> None:
    """Refuse a number format that the device lacks.

    Raises:
        TrainingError: names what to use instead.
    """
    if device.dtype == torch.bfloat16 and device.kind == "cuda":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            name = torch.cuda.get_device_name(device.torch_device)
            raise TrainingError(f"training.precision: {name} does not compute in bf16; use fp16 or fp32")
    elif device.dtype == torch.float16 and device.kind == "cpu" and not cpu_has_fp16():
        raise TrainingError("training.precision: this processor does not compute in fp16; use bf16 or fp32")


def cpu_has_fp16() -> bool:
    """Return whether torch multiplies fp16 matrices on this processor, which DeepSpeed asks for."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_fp16_supported())


def peak_flops(device: Device) -> tuple[float, str] | None:
    """Return FLOP/s that one rank can reach at most, and where the number is from; None where it is not known.

    A CPU is measured (best of a few fp32 matrix multiplications with this rank's threads); GPUs are looked up.
    """
    if device.kind == "cpu":
        return _measured_matmul_flops(), "measured fp32 matrix multiplication"
    name = torch.cuda.get_device_name(device.torch_device)
    for part in sorted(DENSE_BF16_FLOPS, key=len, reverse=True):
        if part in name:
            return DENSE_BF16_FLOPS[part], f"data sheet of {part}, dense 16 bit"
    return None


def _measured_matmul_flops(size: int = 1024, repeats: int = 5) -> float:
    left, right = torch.ones(size, size), torch.ones(size, size)
    fastest = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        torch.mm(left, right)
        fastest = min(fastest, time.perf_counter() - begin)
    return 2 * size**3 / fastest


def prepare_deepspeed() -> None:
    """Keep DeepSpeed from compiling a C++ communication op at start-up, and from gathering by gloo.

    On a CPU it is kept from importing torch's compiler, too, for an optimizer that is not used.

    Call it before DeepSpeed is initialised. The build takes minutes, and one that is killed leaves a lock that every
    later start waits for. Only ``inference_all_reduce`` would use the op.
    """
    has_cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if has_cuda else "cpu")
    import deepspeed

    if not has_cuda:
        with without_compiler(), contextlib.suppress(ImportError):  # as DeepSpeed does, which asks for it at its start
            import deepspeed.runtime.zero.muon.muon_optimizer
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed_on_gloo.install()
