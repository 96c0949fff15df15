"""What a rank of each shipped model holds, and where; what is held and measured is compared in tests/distributed."""

from pathlib import Path
from typing import Any

import pytest

from gptdist.config.memory import MemoryConfig
from gptdist.config.model import ModelConfig
from gptdist.config.optimization import OptimizerConfig
from gptdist.config.run import RunConfig
from gptdist.config.source import read_tree
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.mesh.layout import Layout
from gptdist.model.arithmetic import num_active_parameters, num_parameters
from gptdist.model.host_memory import HostMemory
from gptdist.model.memory import StepMemory, step_memory
from gptdist.model.optimizer_memory import ZeroParts, moment_bytes, muon_update_bytes
from gptdist.model.rank_weights import RankWeights

PRESETS = Path(__file__).parents[3] / "configs" / "models"
NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
ONE = Layout(1, 1, 1, 1)
SMALL = ModelConfig(
    num_layers=2, hidden_size=64, num_attention_heads=4, seq_length=32, vocab_size=256, position_embedding="rope"
)


def preset(name: str) -> ModelConfig:
    return ModelConfig.from_tree(read_tree(PRESETS / f"{name}.yaml")["model"])


def run_config(model: dict[str, Any], **sections: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "name": "test",
        "model": model,
        "data": {"tokenizer": "t", "sources": [{"path": "s", "weight": 1.0}]},
        "batch": {"global_batch_size": 64, "micro_batch_size": 1},
        "training": {"train_steps": 1},
    }
    return RunConfig.from_tree(tree | sections)


def planned(config: RunConfig, world_size: int, **changes: Any) -> StepMemory:
    return step_memory(config, Layout.of(config.parallel, world_size), on_gpu=True, value_bytes=2, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_one_rank_holds_every_parameter_of_a_preset(name: str) -> None:
    model = preset(name)
    padded = model.model_copy(update={"vocab_size": padded_vocab_size(model.vocab_size, 1)})
    assert RankWeights.of(model, ONE, 0).num_values == num_parameters(padded)


def test_layers_of_different_shapes_are_counted_as_they_are() -> None:
    """On each of two stages those of its own layers: attention alone, and a feed-forward part alone, without biases."""
    shapes = [{"ffn_hidden_size": 0}, {"num_attention_heads": 0, "ffn_hidden_size": 96}]
    tree = SMALL.tree() | {"layer_shapes": shapes, "add_bias": False, "tie_embeddings": False}
    model = ModelConfig.from_tree(tree)
    words, norm = 256 * 64, 2 * 64
    stages = [RankWeights.of(model, Layout(1, 1, 1, 2), stage).num_values for stage in (0, 1)]
    assert stages == [words + norm + 4 * 64 * 64, norm + 2 * 64 * 96 + norm + words]
    assert sum(stages) == num_parameters(model)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_planned(name: str) -> None:
    config = run_config(read_tree(PRESETS / f"{name}.yaml")["model"], parallel={"zero_stage": 2})
    found = planned(config, 64)
    values = RankWeights.of(config.model, Layout.of(config.parallel, 64), 0).num_values
    assert found.states == pytest.approx(2 * values + 12 * values / 64, rel=1e-3)
    assert found.peak.total > found.states
    assert found.host == 0


def test_tensor_and_expert_parallel_ranks_hold_all_experts_together() -> None:
    """Mixtral on 2 x 4: an eighth of the experts each, half of all else but norms and routers."""
    model = preset("mixtral-8x7b")
    held = RankWeights.of(model, Layout(2, 1, 4, 1, expert_parallel_size=4), 0)
    experts = num_parameters(model) - num_active_parameters(model)  # six of eight
    assert held.num_expert_values == experts * 8 // 6 // 8
    norms_and_routers = 65 * 4096 + 32 * 8 * 4096
    dense = num_parameters(model) - experts * 8 // 6
    assert held.num_values - held.num_expert_values == (dense + norms_and_routers) // 2


def test_split_experts_are_cut_over_fewer_ranks() -> None:
    held = RankWeights.of(preset("mixtral-8x7b"), Layout(1, 1, 8, 1, expert_parallel_size=4), 0)
    parts = ZeroParts.of(Layout(1, 1, 8, 1, expert_parallel_size=4), 1)
    dense = held.num_values - held.num_expert_values
    expected = 8 * (dense / 8 + held.num_expert_values / 2)
    assert moment_bytes(held, OptimizerConfig(), parts) == pytest.approx(expected, rel=1e-6)


def test_experts_that_are_chosen_more_often_need_more() -> None:
    config = run_config(read_tree(PRESETS / "qwen3-30b-a3b.yaml")["model"], parallel={"tensor_parallel_size": 4})
    even, uneven = planned(config, 64), planned(config, 64, expert_imbalance=1.5)
    layers, pairs = 48, config.model.seq_length * 8 // 4
    more = layers * pairs // 2 * (2 * 2048 + 4 * 768 + 1) * 2
    assert uneven.loss.activations - even.loss.activations == more
    assert uneven.states == even.states


def test_muon_keeps_one_moment_of_hidden_matrices() -> None:
    held = RankWeights.of(SMALL, ONE, 0)
    hidden = 2 * (3 * 64 * 64 + 64 * 64 + 2 * 4 * 64 * 64)
    parts = ZeroParts.of(ONE, 0)
    assert moment_bytes(held, OptimizerConfig(kind="muon"), parts) == 4 * (hidden + 2 * (held.num_values - hidden))
    widest = 4 * 64 * 64
    # a direction of each value, the matrix as it is held and whole, and the iteration
    expected = 4 * (hidden + widest) + 4 * widest + 4 * (4 * widest + 2 * 64 * 64)
    assert muon_update_bytes(held, parts, on_gpu=False) == expected


@pytest.mark.parametrize(("weights", "expected"), [("none", 0), ("nvme", 2 * (5 * 8192 + 2 * 50_000))])
def test_a_disk_takes_buffers_in_memory(weights: str, expected: int) -> None:
    """Two copies; of the largest matrix a rank has 8,192 values, and 50,000 make a sub-group."""
    memory = MemoryConfig.from_tree({"offload_optimizer": "nvme", "offload_parameters": weights, "nvme_path": "/disk"})
    held = RankWeights.of(SMALL, ONE, 0)
    host = HostMemory(
        memory,
        OptimizerConfig(),
        held,
        ZeroParts(2, 2, is_cut=True),
        zero_stage=3,
        value_bytes=2,
        accumulates=True,
        swapped_values=50_000 - 8192,
    )
    gradients = 4 * -(-held.num_values // 2)
    assert host.states() == 4 * 4 * 50_000 + gradients + expected


def test_offloaded_gradients_are_kept_of_whole_weights() -> None:
    """Of a first micro batch in fp32: those of each weight that this rank's part reaches into."""
    held = RankWeights(vectors=[10, 10, 10])
    settings = {"zero_stage": 2, "value_bytes": 4, "swapped_values": 1}
    kept = [
        HostMemory(
            MemoryConfig(offload_optimizer="cpu"),
            OptimizerConfig(),
            held,
            ZeroParts(2, 2, is_cut=True),
            accumulates=accumulates,
            **settings,
        ).states()
        for accumulates in (False, True)
    ]
    assert kept[0] == 4 * 15 + 8 * 15 + 4 * 15 + 4 * (15 + 10)
    assert kept[1] - kept[0] == 4 * 20


def test_the_device_is_relieved_of_what_is_offloaded() -> None:
    model = read_tree(PRESETS / "llama3-8b.yaml")["model"]
    plain = planned(run_config(model, parallel={"zero_stage": 3}), 8)
    memory = {"offload_optimizer": "cpu", "offload_parameters": "cpu"}
    spared = planned(run_config(model, parallel={"zero_stage": 3}, memory=memory), 8)
    values = num_parameters(preset("llama3-8b"))
    assert plain.states - spared.states == pytest.approx((2 + 12 + 4) * values / 8, rel=1e-2)
    assert spared.host == pytest.approx((2 + 12 + 4 + 4) * values / 8, rel=1e-2)
