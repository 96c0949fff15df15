"""Libraries are imported without what they do not use on a CPU, and leave torch as it was."""

import subprocess
import sys

import pytest
import torch

from tests.support.ranks import repository

PROGRAM = """
import sys, torch
before = torch.compile
from gptdist.device import megatron_on_cpu
from gptdist.device.device import prepare_deepspeed
megatron_on_cpu.install()
prepare_deepspeed()
import deepspeed.runtime.zero.muon.muon_optimizer
import megatron.core.activations, megatron.core.transformer.moe.moe_layer
assert torch.compile is before
assert megatron.core.activations.squared_relu(torch.tensor(3.0)) == 9.0
assert "wandb" not in sys.modules
import wandb
print([name for name in ("torch._inductor.compile_fx", "triton") if name in sys.modules])
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is changed where there is a GPU")
def test_neither_the_compiler_nor_wandb_is_imported() -> None:
    pytest.importorskip("wandb")
    argv = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(argv, cwd=repository(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
