"""Time of a step: each term answers to what it is made of, and nothing else."""

from dataclasses import replace

import pytest

from gptdist.config.model import ModelConfig
from gptdist.mesh.layout import Layout
from gptdist.plan.constants import FITTED
from gptdist.plan.device import find_device, find_network
from gptdist.plan.layer_time import SMALL_TILE, wave_fraction
from gptdist.plan.step_time import StepTime, rank_parameters, step_time
from gptdist.plan.workload import Recomputation, Software, Workload

MODEL = ModelConfig(num_layers=32, hidden_size=4096, num_attention_heads=32, seq_length=2048, vocab_size=50304)
WORKLOAD = Workload(
    model=MODEL,
    layout=Layout(1, 1, 8, 1),
    micro_batch_size=4,
    num_micro_batches=8,
    precision="bf16",
    zero_stage=1,
)


def seconds(workload: Workload, device: str = "a100-80gb", network: str | None = None) -> StepTime:
    return step_time(workload, find_device(device), None if network is None else find_network(network), FITTED)


def test_matrix_work_is_flops_over_the_rate() -> None:
    tokens = 8 * 4 * 2048
    flops = 3 * 2.0 * tokens * 32 * 12 * 4096**2
    reached = flops / seconds(WORKLOAD).matmul / (312e12 * FITTED.matmul_ampere)
    assert 0.85 < reached <= 1.0  # the rest are last waves that are not full


def test_waves_are_dealt_out_in_whole_tiles() -> None:
    assert wave_fraction(128 * 108, 256, 108) == 1.0
    assert wave_fraction(128 * 2, 256 * 72, 108) == pytest.approx(SMALL_TILE * 288 / 324)
    assert wave_fraction(7, 7, 0) == 1.0


def test_computing_again_costs_a_pass() -> None:
    again = replace(WORKLOAD, recomputation=Recomputation(1.0, 1.0, 1.0))
    before, after = seconds(WORKLOAD), seconds(again)
    assert after.matmul / before.matmul == pytest.approx(4 / 3, rel=0.02)
    assert after.attention / before.attention == pytest.approx(4.5 / 3.5)
    assert after.output == before.output


def test_tensor_parallel_traffic_is_there_only_with_it() -> None:
    assert seconds(WORKLOAD).tensor_parallel == 0.0
    split = replace(WORKLOAD, layout=Layout(8, 1, 1, 1), num_micro_batches=64)
    found = seconds(split)
    sent = 64 * 32 * 4 * 2 * 7 / 8 * 4 * 2048 * 4096 * 2
    assert found.tensor_parallel == pytest.approx(sent / (300e9 * FITTED.link_fraction))
    across = replace(WORKLOAD, layout=Layout(16, 1, 1, 1))
    slow = seconds(across, network="ethernet-10").tensor_parallel
    assert slow > 20 * seconds(across).tensor_parallel


def test_a_pipelines_bubble() -> None:
    piped = replace(WORKLOAD, layout=Layout(1, 1, 2, 4), num_micro_batches=32)
    found = seconds(piped)
    busy = found.total - found.pipeline_bubble - found.pipeline_transfer - found.data_parallel - found.optimizer
    assert found.pipeline_bubble / busy == pytest.approx(3 / 32, rel=0.15)  # the last stage has the head as well
    halved = seconds(replace(piped, virtual_stages=2))
    assert halved.pipeline_bubble == pytest.approx(found.pipeline_bubble / 2)
    assert halved.pipeline_transfer == pytest.approx(found.pipeline_transfer * 2)


def test_weights_that_are_cut_are_gathered_for_each_micro_batch() -> None:
    slow = find_network("ethernet-10")
    spread = replace(WORKLOAD, layout=Layout(1, 1, 64, 1))
    device = find_device("a100-80gb")
    once = step_time(replace(spread, zero_stage=2), device, slow, FITTED).data_parallel
    each = step_time(replace(spread, zero_stage=3), device, slow, FITTED).data_parallel
    assert each > 8 * once
    eager = replace(spread, zero_stage=3, software=Software(gathers_eagerly=True))
    assert step_time(eager, device, slow, FITTED).data_parallel > each


def test_heads_that_matrix_units_cannot_take() -> None:
    even = replace(WORKLOAD, software=Software(attention="unfused"))
    odd = replace(even, model=MODEL.model_copy(update={"num_attention_heads": 40, "kv_channels": 102}))
    assert seconds(odd).attention > 3 * seconds(even).attention


def test_fp8_is_faster_in_products_alone() -> None:
    eight = replace(WORKLOAD, precision="fp8")
    before, after = seconds(WORKLOAD, "h100-80gb"), seconds(eight, "h100-80gb")
    assert after.matmul == pytest.approx(before.matmul / 2, rel=0.01)
    assert after.attention == before.attention
    assert after.elementwise > before.elementwise
    rowwise = seconds(replace(eight, software=Software(rowwise_fp8=True)), "h100-80gb")
    assert rowwise.matmul == pytest.approx(before.matmul)


def test_experts_cost_what_a_token_meets() -> None:
    sparse = ModelConfig.from_tree(
        MODEL.tree() | {"moe": {"num_experts": 8, "experts_per_token": 2}, "add_bias": False}
    )
    dense = seconds(WORKLOAD).matmul
    found = seconds(replace(WORKLOAD, model=sparse))
    assert found.matmul / dense == pytest.approx((4 + 2 * 8) / 12, rel=0.05)
    split = seconds(replace(WORKLOAD, model=sparse, layout=Layout(1, 1, 8, 1, 8)))
    whole = rank_parameters(replace(WORKLOAD, model=sparse))
    eighth = rank_parameters(replace(WORKLOAD, model=sparse, layout=Layout(1, 1, 8, 1, 8)))
    assert whole - eighth == 7 / 8 * 32 * 8 * 8 * 4096**2
    assert split.expert_parallel > found.expert_parallel == 0.0


def test_a_window_and_context_parallelism() -> None:
    near = replace(WORKLOAD, model=MODEL.model_copy(update={"local_attention_window": 256}))
    assert 0.5 < seconds(near).attention / seconds(WORKLOAD).attention < 0.7
    split = replace(WORKLOAD, layout=Layout(1, 2, 4, 1))
    assert seconds(split).context_parallel > seconds(WORKLOAD).context_parallel == 0.0
    assert seconds(split).attention == pytest.approx(seconds(WORKLOAD).attention / 2)
