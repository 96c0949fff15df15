"""What a device lacks is refused with what to use instead."""

import pytest
import torch

from gptdist.device.device import Device, check_format, choose_device
from gptdist.errors import TrainingError


def test_a_gpu_that_does_not_compute_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says of a V100, which is not there."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    message = "^training.precision: Tesla V100 does not compute in bf16; use fp16 or fp32$"
    with pytest.raises(TrainingError, match=message):
        check_format(Device("cuda", torch.bfloat16, local_rank=0))
    check_format(Device("cuda", torch.float16, local_rank=0))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there() -> None:
    with pytest.raises(TrainingError, match=r"training.device: cuda is asked for, but torch sees no CUDA device"):
        choose_device("cuda", "auto", local_rank=0)
