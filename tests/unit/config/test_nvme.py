"""What may be offloaded to files, and what not, without torch."""

from pathlib import Path

import pytest

from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from tests.unit.config.written import run_problems, write_config

NVME = ["memory.offload_optimizer=nvme", "memory.nvme_path=/disk", "parallel.zero_stage=3"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["memory.offload_optimizer=nvme", "memory.nvme_path=/disk", "parallel.zero_stage=2"],
            "memory.offload_optimizer: nvme needs parallel.zero_stage 3, got 2; set it, or use cpu",
        ),
        (
            ["memory.offload_optimizer=nvme", "parallel.zero_stage=3"],
            "memory.nvme_path: missing; nvme needs a folder on a local disk of each machine",
        ),
        (
            [*NVME, "optimizer.kind=adafactor"],
            "memory.offload_optimizer: nvme swaps moments of each value, adafactor has few; use cpu or none",
        ),
        (["memory.nvme_path=/disk"], "memory.nvme_path: belongs to offload to nvme, and nothing is; remove it"),
        (
            [*NVME, "optimizer.moment_precision=bf16"],
            "memory.offload_optimizer: nvme swaps weights and moments in one format, moment_precision is bf16; use",
        ),
        (
            [*NVME, "optimizer.kind=muon"],
            "memory.offload_optimizer: muon puts matrices together on the device; use adamw or lion, or none",
        ),
        (
            ["memory.offload_parameters=nvme", "memory.nvme_path=/disk", "parallel.zero_stage=2"],
            "memory.offload_parameters: needs parallel.zero_stage 3, got 2; set it, or none",
        ),
    ],
)
def test_one_mistake_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    (problem,) = run_problems(tmp_path, overrides)
    assert problem.startswith(message)


def test_what_is_refused_of_nvme_has_a_legal_neighbour(tmp_path: Path) -> None:
    for legal in (NVME, [*NVME, "optimizer.kind=lion", "memory.offload_parameters=nvme"]):
        load_config(RunConfig, write_config(tmp_path), legal)
