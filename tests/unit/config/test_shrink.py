"""A run made small is legal, splits what the real one splits, and has the same switches."""

import math
from pathlib import Path
from typing import Any

import pytest

from gptdist.config.exportable import export_problems, huggingface_class
from gptdist.config.other_layout import other_layout
from gptdist.config.run import RunConfig
from gptdist.config.shrink import Materials, SmallRun, shrink
from gptdist.config.shrink_axes import Axes, small_axes
from gptdist.config.source import apply_overrides, read_tree
from gptdist.errors import ConfigError
from tests.support.ranks import repository

PRESETS = sorted(path.stem for path in (repository() / "configs" / "models").glob("*.yaml"))
MATERIALS = Materials(Path("/work-folder"), made_vocab_size=257)
RUN: dict[str, Any] = {
    "name": "real",
    "data": {"tokenizer": "t", "sources": [{"path": "d/web", "weight": 0.7}, {"path": "d/code", "max_epochs": 2.0}]},
    "batch": {"global_batch_size": 1024, "micro_batch_size": 4},
    "training": {"train_steps": 100_000},
    "schedule": {"warmup_steps": 2000, "warmup_tokens": None, "decay_tokens": None},
}
LAYOUTS = {
    "one": (1, []),
    "data": (64, ["parallel.zero_stage=3"]),
    "tensor": (64, ["parallel.tensor_parallel_size=4", "parallel.sequence_parallel=true", "parallel.zero_stage=2"]),
    "pipeline": (64, ["parallel.tensor_parallel_size=4", "parallel.pipeline_parallel_size=4"]),
    "context": (
        64,
        ["parallel.tensor_parallel_size=2", "parallel.sequence_parallel=true", "parallel.context_parallel_size=4"],
    ),
    "all": (
        64,
        [
            *("parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=4"),
            "parallel.context_parallel_size=2",
        ],
    ),
    "experts": (64, ["parallel.expert_parallel_size=4", "parallel.tensor_parallel_size=2"]),
}
ANY_MODEL = "checkpoints.exportable=false"
SWITCHES = (
    *("position_embedding", "rope_base", "normalization", "norm_epsilon", "qk_norm", "activation", "add_bias"),
    "add_qkv_bias",
    *("tie_embeddings", "attention_dropout", "hidden_dropout", "init", "init_std"),
)


def _config(*overrides: str, preset: str = "llama3-8b") -> RunConfig:
    tree = read_tree(repository() / "configs" / "models" / f"{preset}.yaml")
    for section, values in RUN.items():
        tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
    return RunConfig.from_tree(apply_overrides(tree, list(overrides)))


def _small(config: RunConfig, world_size: int, materials: Materials = MATERIALS, ranks: int | None = None) -> SmallRun:
    assert config.problems(world_size) == []
    small = shrink(config, world_size, materials, ranks=ranks)
    assert small.config.problems() == [], "the small run is legal"
    assert small.config.launch.ranks_per_node == small.ranks
    return small


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_in_every_layout(preset: str) -> None:
    tried = 0
    for world_size, overrides in LAYOUTS.values():
        config = _config(*overrides, preset=preset)
        if not config.problems(world_size):
            tried += 1
            _is_small_copy(config, world_size)
    assert tried >= 2, "with and without data parallelism, and what else its sizes allow"


def _is_small_copy(config: RunConfig, world_size: int) -> None:
    small = _small(config, world_size)
    real, now = config.model, small.config.model
    for switch in SWITCHES:
        assert getattr(now, switch) == getattr(real, switch), switch
    assert (now.query_groups == now.num_attention_heads) == (real.query_groups == real.num_attention_heads)
    assert (now.hidden_size == now.num_attention_heads * now.head_size) == (
        real.hidden_size == real.num_attention_heads * real.head_size
    )
    assert (now.moe is None) == (real.moe is None)
    assert now.rope_scaling is None or now.seq_length > now.rope_scaling.original_seq_length
    _same_export(config, small.config)
    was, axes = Axes.of(config, world_size), Axes.of(small.config, small.ranks)
    assert axes == was.smallest()
    assert small.config.parallel.kind(small.ranks, now) == config.parallel.kind(world_size, real)
    assert small.config.optimizer == config.optimizer
    assert now.hidden_size * now.num_layers < 2000, "small"


def _same_export(config: RunConfig, small: RunConfig) -> None:
    def keys(one: RunConfig) -> list[str]:
        return [problem.split(": ")[0] for problem in export_problems(one.model)]

    assert keys(config) == keys(small)
    if not keys(config):
        assert huggingface_class(config.model) == huggingface_class(small.model)


def test_the_small_run_has_another_layout_to_go_on_in() -> None:
    for world_size, overrides in LAYOUTS.values():
        for preset in ("gpt2-124m", "gpt3-13b", "llama3-8b", "mixtral-8x7b"):
            config = _config(*overrides, preset=preset)
            if not config.problems(world_size):
                small = _small(config, world_size).config
                changed = other_layout(small)
                assert changed is not None
                other = RunConfig.from_tree(apply_overrides(small.tree(), changed))
                assert other.problems() == []
                assert other.parallel != small.parallel


def test_the_axis_that_dropout_depends_on_stays() -> None:
    overrides = ["parallel.tensor_parallel_size=2", "parallel.zero_stage=1"]
    drops = _small(_config(*overrides, "model.attention_dropout=0.1"), 2).config
    assert other_layout(drops) == ["parallel.zero_stage=2"]
    assert other_layout(_small(_config(*overrides), 2).config) == [
        *("parallel.tensor_parallel_size=1", "launch.ranks_per_node=1", "parallel.zero_stage=2"),
    ]
    hidden = ["parallel.sequence_parallel=true", "model.hidden_dropout=0.1"]
    assert other_layout(_small(_config(*overrides, *hidden), 2).config) == ["parallel.zero_stage=2"]


def test_another_layout_is_a_legal_one() -> None:
    offloads = _small(_config("parallel.zero_stage=3", "memory.offload_parameters=cpu"), 2).config
    assert other_layout(offloads) == ["launch.ranks_per_node=1"], "ZeRO stage 3 alone can do so"
    alone = _small(_config("batch.global_batch_size=4"), 1).config
    assert other_layout(alone) == ["parallel.zero_stage=2"], "one micro batch is not for two ranks"
    assert other_layout(_small(_config("batch.global_batch_size=8"), 1).config) == [
        *("launch.ranks_per_node=2", "parallel.zero_stage=2"),
    ]


def test_ranks_that_are_asked_for() -> None:
    real = Axes(tensor=8, data=4, pipeline=12)
    assert small_axes(real, None) == Axes(2, 2, 2)
    assert small_axes(real, 4) == Axes(tensor=2, data=2)
    assert real.left_out(small_axes(real, 4)) == [
        "parallel.pipeline_parallel_size: 12 becomes 1; --ranks 8 splits every axis"
    ]
    assert small_axes(real, 16) == Axes(tensor=2, data=4, pipeline=2)
    assert small_axes(real, 3) == Axes(data=3)
    assert small_axes(Axes(tensor=8), 8) == Axes(tensor=8)
    experts = Axes(data=8, expert=4)
    assert experts.left_out(small_axes(experts, 1)) == [
        "data-parallel size: 8 becomes 1; --ranks 2 splits every axis",
        "parallel.expert_parallel_size: 4 becomes 1; --ranks 2 splits every axis",
    ]
    for ranks in (0, 17, 5):
        with pytest.raises(ConfigError, match=rf"^--ranks: {ranks} are no small copy of the job's 8; use one of \[1, "):
            small_axes(Axes(tensor=8), ranks)


def test_left_out_axes_leave_a_legal_run() -> None:
    config = _config("parallel.tensor_parallel_size=4", "parallel.sequence_parallel=true")
    for ranks in (1, 2, 3, 4):
        _small(config, 64, ranks=ranks)
    experts = _config("parallel.expert_parallel_size=4", preset="mixtral-8x7b")
    assert _small(experts, 8, ranks=1).config.parallel.expert_parallel_size == 1


def test_more_ranks_than_need_be_are_legal_too() -> None:
    for overrides, preset in (
        (["parallel.tensor_parallel_size=8", "parallel.sequence_parallel=true"], "llama3-8b"),
        (["parallel.tensor_parallel_size=4", "parallel.expert_parallel_size=2"], "mixtral-8x7b"),
        (["parallel.pipeline_parallel_size=8"], "llama3-8b"),
        (
            [
                "parallel.context_parallel_size=8",
                "batch.seq_length_ramp=[{seq_length: 1024, until_samples: 9}, {seq_length: 2048, until_samples: 99}]",
            ],
            "llama3-8b",
        ),
    ):
        for world_size, ranks in ((8, 8), (16, 16)):
            config = _config(*overrides, preset=preset)
            small = _small(config, world_size, ranks=ranks)
            assert Axes.of(small.config, ranks) == Axes.of(config, world_size)


RAMPS = [
    "batch.ramp=[{global_batch_size: 256, until_tokens: 2000000000}, "
    "{global_batch_size: 512, increment: 256, until_tokens: 90000000000}]",
    "batch.seq_length_ramp=[{seq_length: 1024, until_samples: 100000}, {seq_length: 4096, until_samples: 900000}]",
    "data.stages=[{from_tokens: 400000000000, weights: {code: 1.0}}]",
]


def test_ramps_and_stages_end_before_the_first_checkpoint() -> None:
    small = _small(_config(*RAMPS), 64).config
    sizes, saved = small.batch_sizes, small.batch_sizes.after(0, small.intervals.save_steps)
    taken = [sizes.at(sizes.after(0, step)) for step in range(small.training.train_steps)]
    assert sorted(set(taken)) == sorted(set(sizes.sizes)), "each size has a step"
    assert sizes.at(saved) == small.batch.global_batch_size == max(taken)
    lengths = small.seq_lengths
    assert [lengths.at(sizes.after(0, step)) for step in range(3)] == [8, 16, 32]
    assert small.data.stages[0].first_sample(small.model.seq_length) < saved
    assert small.data.stages[0].from_tokens is not None, "in the unit of the real one"


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule.decay_steps=90_000"],
        ["schedule.kind=wsd", "schedule.cooldown_steps=1"],
        ["schedule.kind=wsd", "schedule.warmup_steps=79_999"],
        ["schedule.kind=wsd", "schedule.warmup_steps=1", "schedule.cooldown_steps=99_999"],
        ["schedule.kind=linear", "schedule.warmup_steps=0", "schedule.warmup_tokens=1", "schedule.decay_tokens=2"],
        ["schedule.kind=inverse_sqrt", "schedule.warmup_steps=99_999"],
        ["schedule.kind=constant", "schedule.warmup_steps=0"],
    ],
)
def test_schedules_keep_their_shape(overrides: list[str]) -> None:
    config = _config(*overrides)
    small = _small(config, 64).config
    assert small.schedule.kind == config.schedule.kind
    assert small.schedule.in_tokens == config.schedule.in_tokens
    for key, value in config.schedule.tree().items():
        assert (small.schedule.tree()[key] in (None, 0)) == (value in (None, 0)), key


def test_what_happens_now_and_then_happens_twice() -> None:
    config = _config(
        *("intervals.sample_steps=1000", "generation={prompts_file: p.txt, max_new_tokens: 100}"),
        *("checkpoints.keep={last: 1, every_steps: 5000}", "training.early_stopping={patience_evaluations: 3}"),
        *("telemetry.profile_steps=[100, 105]", "launch={ranks_per_node: 8, max_restarts: 9, time_limit_minutes: 99}"),
    )
    small = _small(config, 64)
    every, steps = small.config.intervals, small.config.training.train_steps
    assert (every.log_steps, every.save_steps, steps, every.sample_steps) == (1, steps // 2, 4, steps // 2)
    assert small.config.checkpoints.keep.tree() == {"last": 2, "every_steps": 2, "best": None, "for_hours": None}
    assert small.config.generation is not None
    assert small.config.generation.prompts == ("",)
    assert small.config.launch.max_restarts == 0
    assert "launch.time_limit_minutes: no time limit" in small.left_out


def test_nothing_of_the_real_run_is_touched() -> None:
    config = _config(
        *("checkpoints.remote={url: 's3://bucket/runs', keep: {last: 1}}", "telemetry.wandb={project: p}"),
        "checkpoints.protection={encrypt: true, key_path: k, signing_key_path: s, trusted_key_path: t}",
        *(
            "training.init_from=runs/base",
            "training.keep_zeros=true",
            "data.loss_mask={ignore_tokens: [128001, '<pad>']}",
        ),
        *("memory={offload_optimizer: nvme, nvme_path: /scratch}", "parallel.zero_stage=3"),
        "data.validation=[{name: news, path: d/news, split: train, samples: 500}]",
    )
    small = _small(config, 64)
    now = small.config
    assert now.checkpoints.remote is not None
    assert now.checkpoints.remote.url == "file:///work-folder/store"
    assert now.checkpoints.protection.encrypt
    assert now.telemetry.wandb is None
    assert now.training.init_from is None
    assert not now.training.keep_zeros
    assert now.checkpoints.protection.signing_key_path == "/work-folder/keys/private.pem"
    assert now.memory.offload_optimizer == "cpu"
    assert now.data.loss_mask.ignore_tokens == ("<|endoftext|>",)
    assert [line.split(":")[0] for line in small.left_out] == [
        *("telemetry.wandb", "checkpoints.remote", "checkpoints.protection", "memory.nvme_path"),
        *("training.init_from", "training.keep_zeros", "training.precision"),
    ]
    paths = [now.folder, now.data.tokenizer, *(one.path for one in (*now.data.sources, *now.data.validation))]
    assert all(path.is_relative_to("/work-folder") for path in paths)
    assert [source.name for source in now.data.sources] == ["web", "code"]
    assert [source.weight for source in now.data.sources] == [0.7, None]


def test_a_folder_that_no_url_can_name_gets_no_copies() -> None:
    config = _config("checkpoints.remote={url: 's3://bucket/runs'}")
    small = _small(config, 64, Materials(Path("/is this#one"), made_vocab_size=257))
    assert small.config.checkpoints.remote is None
    assert "checkpoints.remote: s3://bucket/runs is not asked; nothing is copied" in small.left_out


def test_own_data_keeps_vocabulary_and_packing() -> None:
    config = _config("data.eval_samples=0", "data.sources=[{path: d/web, max_epochs: 0.5}]")
    small = _small(config, 64, Materials(Path("/work-folder"), packed_for=8192)).config
    assert small.model.vocab_size == config.model.vocab_size
    assert small.model.seq_length == 8192
    assert small.data.sources == config.data.sources
    assert small.data.tokenizer == config.data.tokenizer
    assert small.data.eval_samples == 4
    assert _small(config, 64, Materials(Path("/work-folder"))).config.model.seq_length == 32


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_number_format_is_kept(precision: str) -> None:
    assert _small(_config(f"training.precision={precision}"), 64).config.training.precision == precision


def test_fp16_that_the_processor_lacks_is_bf16() -> None:
    config = _config("training.precision=fp16", "training.loss_scale.initial_power=12")
    small = _small(config, 64, Materials(Path("/work-folder"), made_vocab_size=257, has_fp16=False))
    assert small.config.training.precision == "bf16"
    assert small.left_out[-1].startswith("training.precision: this processor does not compute in fp16")
    assert _small(config, 64).config.training.loss_scale == config.training.loss_scale


def test_auto_on_cuda_is_bf16() -> None:
    assert _small(_config("training.device=cuda"), 64).config.training.precision == "bf16"
    small = shrink(_config("training.device=cuda", "parallel.zero_stage=0"), 64, MATERIALS)
    assert "no fp32 gradient accumulation for bf16" in small.config.problems()[0], "as every rank would find there"
    (line,) = _small(_config("parallel.zero_stage=0"), 64).left_out
    assert "bf16 on CUDA; and refused there: parallel.zero_stage: DeepSpeed has no fp32" in line


def test_a_budget_makes_it_compute_something_again() -> None:
    for layers in ("parallel.pipeline_parallel_size=4", "parallel.tensor_parallel_size=2"):
        small = _small(_config("memory={recompute: budget, activation_bytes: 60000000000}", layers), 64).config
        assert other_layout(small) is not None
        lower = small.memory.model_copy(update={"activation_bytes": small.memory.activation_bytes // 4})
        assert small.model_copy(update={"memory": lower}).problems(), "not far above the least"
    full = _config("memory={recompute: full, recompute_layers: 8}")
    assert _small(full, 64).config.memory.recompute_layers == 1


def test_pruned_layers_stay_pruned() -> None:
    shapes = (
        "model.layer_shapes=[{layers: 8, ffn_hidden_size: 0}, {layers: 8, num_attention_heads: 0}, "
        "{layers: 8, num_attention_heads: 16, num_query_groups: 4}, {layers: 8, ffn_hidden_size: 4096}]"
    )
    for overrides in ([], ["parallel.tensor_parallel_size=4"], ["parallel.pipeline_parallel_size=8"]):
        config = _config(ANY_MODEL, shapes, *overrides)
        small = _small(config, 64).config
        common, found = small.model.common_shape, small.model.shapes()
        assert (found[0].ffn, found[1].heads) == (0, 0)
        assert found[2].heads not in (0, common.heads)
        assert found[3].ffn not in (0, common.ffn)
        _same_export(config, small)
    three = shapes.replace("{layers: 8, ffn_hidden_size: 0}, ", "").replace(
        "{layers: 8, num_attention_heads: 0}", ("{layers: 16, num_attention_heads: 0}")
    )
    assert _small(_config(ANY_MODEL, three, "parallel.pipeline_parallel_size=8"), 64).config.model.num_layers == 4


def test_mup_and_windows_keep_their_relations() -> None:
    config = _config(
        *("model.init=mup", "model.mup_base_hidden_size=256", "model.mup_base_head_size=64"),
        *("model.local_attention_window=1024", "model.moe=null", ANY_MODEL),
    )
    model = _small(config, 64).config.model
    assert model.width_multiplier > 4
    assert math.isclose(model.attention_multiplier, config.model.attention_multiplier)
    assert model.local_attention_window == model.seq_length // 8
    _same_export(config, _small(config, 64).config)


def test_experts_in_every_second_layer() -> None:
    config = _config(
        ANY_MODEL,
        "model.moe={num_experts: 64, experts_per_token: 1, every_n_layers: 4, normalize_weights: false}",
    )
    model = _small(config, 64).config.model
    assert model.moe is not None
    assert (model.moe.num_experts, model.moe.experts_per_token, model.moe.every_n_layers) == (2, 1, 2)
    assert model.num_expert_layers == 1
    _same_export(config, _small(config, 64).config)
