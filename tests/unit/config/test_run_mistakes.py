"""Each mistake in a run config is one line that says where, what and what to do."""

from pathlib import Path

import pytest

from tests.unit.config.written import run_problems

EXPERTS = [
    *("model.moe={num_experts: 4}", "model.add_bias=false"),
    *("parallel.expert_parallel_size=2", "launch.ranks_per_node=2"),
]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch.micro_batchsize=3"], "batch.micro_batchsize: unknown key; did you mean 'micro_batch_size'?"),
        (["lr=3e-4"], "lr: unknown key; did you mean 'optimizer.lr'?"),
        (["model.zzz=1"], "model.zzz: unknown key; known here: activation, "),
        (["batch.global_batch_size=eight"], 'batch.global_batch_size: input should be a valid integer, got "eight"'),
        (["model.tie_embeddings=yes"], 'model.tie_embeddings: input should be a valid boolean, got "yes"'),
        (["model.num_layers=0"], "model.num_layers: must be at least 1, got 0"),
        (["model.num_attention_heads=5"], "(5) does not divide model.hidden_size (32)"),
        (["model.num_query_groups=3"], "(3) does not divide model.num_attention_heads (4); use one of [1, 2, 4]"),
        (["model.position_embedding=rope", "model.kv_channels=7"], "rotary positions need an even head size, got 7"),
        (["model.hidden_dropout=1.0"], "model.hidden_dropout: must be at least 0 and below 1, got 1.0"),
        (["model.init_std=0.0"], "model.init_std: must be above 0, got 0.0"),
        (["parallel.tensor_parallel_size=0"], "parallel.tensor_parallel_size: must be at least 1, got 0"),
        (["parallel.tensor_parallel_size=2"], "does not divide the number of ranks (1); launch a multiple of 2"),
        (
            ["parallel.tensor_parallel_size=8", "launch.ranks_per_node=8"],
            "(8) does not divide model.num_attention_heads (4); use one of [1, 2, 4]",
        ),
        (
            ["memory.offload_optimizer=cpu", "parallel.zero_stage=0"],
            "memory.offload_optimizer: ZeRO stage 0 cannot offload; set parallel.zero_stage to 1, 2 or 3",
        ),
        (
            ["memory.offload_optimizer=cpu", "optimizer.kind=muon"],
            "memory.offload_optimizer: muon puts matrices together on the device; use adamw or lion, or none",
        ),
        (["memory.offload_parameters=cpu"], "memory.offload_parameters: needs parallel.zero_stage 3, got 1; set it"),
        (["memory.recompute_layers=1"], "memory.recompute_layers: belongs to recompute full, not none; remove it"),
        (["memory.recompute=full", "memory.recompute_layers=9"], "memory.recompute_layers: must be from 1 to model."),
        (["parallel.sequence_parallel=true"], "parallel.sequence_parallel: needs tensor_parallel_size above 1, got 1"),
        (
            ["parallel.pipeline_parallel_size=2", "training.precision=fp16", "launch.ranks_per_node=2"],
            "parallel.pipeline_parallel_size (2): stages pass gradients on unscaled, fp16 needs a loss scale",
        ),
        (
            [
                "parallel.pipeline_parallel_size=2",
                "launch.ranks_per_node=2",
                "intervals.sample_steps=5",
                "generation={prompts: [a], max_new_tokens: 5}",
            ],
            "parallel.pipeline_parallel_size (2): no stage can write texts alone; leave generation out",
        ),
        (["parallel.pipeline_parallel_size=0"], "parallel.pipeline_parallel_size: must be at least 1, got 0"),
        (
            ["parallel.pipeline_parallel_size=2", "parallel.tensor_parallel_size=2", "launch.ranks_per_node=2"],
            "(2) x the ranks of a stage (2) does not divide the number of ranks (2); launch a multiple of 4 ranks",
        ),
        (
            ["parallel.pipeline_parallel_size=3", "launch.ranks_per_node=3"],
            "parallel.pipeline_parallel_size (3) does not divide model.num_layers",
        ),
        (
            ["parallel.pipeline_parallel_size=2", "parallel.zero_stage=3", "launch.ranks_per_node=2"],
            "parallel.zero_stage: 3 collects each layer's weights anew for every micro batch",
        ),
        (["parallel.context_parallel_size=0"], "parallel.context_parallel_size: must be at least 1, got 0"),
        (
            ["parallel.context_parallel_size=4", "parallel.tensor_parallel_size=2", "launch.ranks_per_node=4"],
            "(4) x tensor_parallel_size (2) does not divide the number of ranks (4); launch a multiple of 8 ranks",
        ),
        (
            ["parallel.context_parallel_size=3", "launch.ranks_per_node=3"],
            "parallel.context_parallel_size (3): model.seq_length (32) is no multiple of 2 x 3; change one of them",
        ),
        (
            [
                "model.num_attention_heads=12",
                "model.hidden_size=48",
                "parallel.tensor_parallel_size=12",
                "parallel.sequence_parallel=true",
                "parallel.context_parallel_size=2",
                "launch.ranks_per_node=24",
                "model.seq_length=36",
            ],
            "tensor_parallel_size (12) x context_parallel_size (2) does not divide model.seq_length (36); change one",
        ),
        (["parallel.zero_stage=4"], "parallel.zero_stage: must be 0, 1, 2 or 3, got 4"),
        (["parallel.zero_stage=0", "training.precision=bf16"], "no fp32 gradient accumulation for bf16 at stage 0"),
        (["batch.global_batch_size=9"], "(9) is no multiple of batch.micro_batch_size (2) x data-parallel size (1)"),
        (
            ["batch.ramp=[{until_samples: 8, global_batch_size: 3}]"],
            "batch.ramp[0].global_batch_size (3) is no multiple of batch.micro_batch_size (2) x data-parallel size (1)",
        ),
        (["batch.ramp=[{until_tokens: 8, global_batch_size: 0}]"], "batch.ramp[0].global_batch_size: must be at least"),
        (["batch.ramp=[{until: 8}]"], "batch.ramp[0].until: unknown key; known here: "),
        (["batch.micro_batch_size=0"], "batch.micro_batch_size: must be at least 1, got 0"),
        (["training.train_steps=0"], "training.train_steps: must be at least 1, got 0"),
        (
            ["telemetry.profile_steps=[3, 2]"],
            "telemetry.profile_steps: must be a first step from 1 and a last one from",
        ),
        (["training.z_loss=-1.0"], "training.z_loss: must be at least 0, got -1.0"),
        (["training.collective_timeout_seconds=0.0"], "training.collective_timeout_seconds: must be above 0"),
        (["optimizer.lr=-1"], "optimizer.lr: must be above 0, got -1.0"),
        (["optimizer.beta2=1.0"], "optimizer.beta2: must be at least 0 and below 1, got 1.0"),
        (
            ["training.precision=fp8"],
            "training.precision: fp8 needs layers of Transformer Engine, which the model has none",
        ),
        (
            ["training.precision=fp16", "parallel.zero_stage=0"],
            "no fp32 gradient accumulation for fp16 at stage 0; use 1 or 2",
        ),
        (
            ["training.precision=fp16", "parallel.zero_stage=3"],
            "by the next step's loss scale; use 1 or 2, or set training.precision to b",
        ),
        (
            ["training.precision=fp16", "memory.offload_optimizer=cpu"],
            "training.precision: fp16 is not tested with offload; use bf16, or leave memory.offload_optimizer out",
        ),
        (["training.loss_scale.window_steps=9"], "training.loss_scale: belongs to precision fp16, not auto; remove it"),
        (
            ["training.precision=fp16", "training.loss_scale.hysteresis=0"],
            "training.loss_scale.hysteresis: must be at least 1",
        ),
        (
            ["training.precision=fp16", "training.loss_scale.initial_power=40"],
            "initial_power: must be from 0 to 32, got 40",
        ),
        (["optimizer.kind=sgd"], "optimizer.kind: input should be 'adamw'"),
        (["optimizer.kind=lion", "optimizer.eps=1e-8"], "optimizer.eps: belongs to kind adamw, not lion; remove it"),
        (
            ["optimizer.kind=muon", "training.keep_zeros=true"],
            "training.keep_zeros: muon's updates move every",
        ),
        (["optimizer.muon_momentum=0.9"], "optimizer.muon_momentum: belongs to kind muon, not adamw; remove it"),
        (["optimizer.kind=muon", "optimizer.muon_momentum=1.0"], "optimizer.muon_momentum: must be at least 0 and bel"),
        (["optimizer.kind=muon", "optimizer.moment_precision=bf16"], "optimizer.moment_precision: muon keeps its mom"),
        (["optimizer.kind=adafactor", "optimizer.eps=1e-8"], "optimizer.eps: belongs to kind adamw, not adafactor; re"),
        (
            ["optimizer.kind=adafactor", "optimizer.beta1=0.9"],
            "optimizer.beta1: belongs to kinds adamw, lion and muon, not adafactor; remove it",
        ),
        (
            ["optimizer.kind=adafactor", "optimizer.beta2=0.99"],
            "optimizer.beta2: belongs to kinds adamw, lion and muon, not adafactor; remove it",
        ),
        (
            ["optimizer.kind=adafactor", "optimizer.moment_precision=bf16"],
            "optimizer.moment_precision: adafactor keeps its moments in fp32; leave it out, or use adamw or lion",
        ),
        (
            ["optimizer.kind=muon", "model.init=mup", "model.mup_base_hidden_size=32"],
            "optimizer.kind: mup's learning rates are for adamw and lion, not muon; use model.init gpt2 or small",
        ),
        (
            ["optimizer.beta2=0.999", "optimizer.moment_precision=bf16"],
            "optimizer.beta2: must be at most 0.99 with moment_precision bf16, which rounds smaller changes of a",
        ),
        (["optimizer.weight_decay=-0.1"], "optimizer.weight_decay: must be at least 0, got -0.1"),
        (["model.init=mup"], "model.mup_base_hidden_size: missing; init mup needs the width that the learning rate"),
        (["model.mup_base_hidden_size=64"], "model.mup_base_hidden_size: belongs to init mup, not gpt2; remove it"),
        (
            ["model.position_embedding=rope", "model.rotary_fraction=0.1"],
            "model.rotary_fraction: 0.1 of a head of 8 are 0 values; rotary positions turn pairs: choose a fraction",
        ),
        (["model.rotary_fraction=1.5"], "model.rotary_fraction: must be above 0 and at most 1, got 1.5"),
        (
            ["model.rotary_fraction=0.5"],
            "model.rotary_fraction: belongs to position_embedding rope, not learned; remove it",
        ),
        (["model.add_qkv_bias=true"], "model.add_qkv_bias: add_bias has these biases already; remove one of the two"),
        (
            ["model.normalization=rmsnorm", "checkpoints.exportable=true"],
            "model.normalization: rmsnorm has no counterpart in GPT2LMHeadModel, the nearest Hugging Face class; use "
            "layernorm, or checkpoints.exportable false to train it anyway",
        ),
        (["model.local_attention_window=0"], "model.local_attention_window: must be at least 1, got 0"),
        (
            ["model.rope_scaling.factor=2.0"],
            "model.rope_scaling: belongs to position_embedding rope, not learned; remove it",
        ),
        (
            ["model.position_embedding=rope", "model.rope_scaling.factor=0.5"],
            "model.rope_scaling.factor: must be at least 1, got 0.5",
        ),
        (
            ["model.moe={num_experts: 4}"],
            "model.add_bias: experts have no biases; set it to false, or remove model.moe",
        ),
        (
            ["model.moe={num_experts: 4, experts_per_token: 5}"],
            "model.moe.experts_per_token: must be from 1 to num_experts (4), got 5",
        ),
        (["model.moe={num_experts: 0}"], "model.moe.num_experts: must be at least 1, got 0"),
        (["model.moe={num_experts: 4, aux_loss: -1}"], "model.moe.aux_loss: must be at least 0, got -1.0"),
        (
            ["model.moe={num_experts: 4, every_n_layers: 3}", "model.add_bias=false"],
            "model.moe.every_n_layers (3): no layer of 2 has experts; use at most 2",
        ),
        (
            ["model.moe={num_experts: 4}", "model.init=mup", "model.mup_base_hidden_size=8"],
            "model.init: mup's rules are not known for a router; use gpt2 or small, or remove model.moe",
        ),
        (
            [
                *("model.moe={num_experts: 3}", "model.add_bias=false"),
                *("parallel.tensor_parallel_size=2", "launch.ranks_per_node=2"),
            ],
            "parallel.tensor_parallel_size (2) does not divide model.moe.num_experts (3); use one of [1]",
        ),
        (["parallel.expert_parallel_size=2"], "parallel.expert_parallel_size: there is no model.moe; use 1"),
        (
            [*EXPERTS, "parallel.zero_stage=3"],
            "parallel.expert_parallel_size: DeepSpeed does not split experts so at ZeRO stage 3; use zero_stage 2",
        ),
        (
            [*EXPERTS, "launch.ranks_per_node=3"],
            "parallel.expert_parallel_size (2) does not divide the data-parallel size (3); launch more ranks",
        ),
        (
            [*EXPERTS, "model.moe={num_experts: 5}"],
            "parallel.expert_parallel_size (2) x tensor_parallel_size (1) does not divide model.moe.num_experts (5)",
        ),
        ([*EXPERTS, "parallel.expert_parallel_size=0"], "parallel.expert_parallel_size: must be at least 1, got 0"),
        ([*EXPERTS, "optimizer.kind=muon"], "optimizer.kind: muon does not put together experts that are split; use"),
        (
            [*EXPERTS, "training.precision=fp16"],
            "training.precision: fp16 is not tested with parallel.expert_parallel_size; use bf16 or fp32",
        ),
        (
            [*EXPERTS, "memory.offload_optimizer=cpu"],
            "memory.offload_optimizer: not tested with parallel.expert_parallel_size (2); use none",
        ),
        *(
            (
                [
                    *("model.moe={num_experts: 4}", "model.add_bias=false"),
                    *(f"parallel.{axis}=2", "launch.ranks_per_node=2"),
                ],
                message,
            )
            for axis, message in (
                (
                    "pipeline_parallel_size",
                    "parallel.pipeline_parallel_size: not with model.moe, whose router's losses",
                ),
                ("context_parallel_size", "parallel.context_parallel_size: not with model.moe, whose router's losses"),
            )
        ),
        (["schedule.warmup_steps=10"], "below the end of the decay (10), got 10; shorten the warm-up"),
        (["schedule.min_lr_ratio=2"], "schedule.min_lr_ratio: must be from 0 to 1, got 2.0"),
        (["intervals.save_steps=0"], "intervals.save_steps: must be at least 1, got 0"),
        (["launch.ranks_per_node=0"], "launch.ranks_per_node: must be at least 1, got 0"),
        (["data.sources=[]"], "data.sources: empty; name at least one dataset folder"),
        (["data.sources=[{path: a, weight: 0}]"], "data.sources[0].weight: must be above 0, got 0.0"),
        (
            ["data.sources=[{path: a, weight: -2}]"],
            "data.sources[0].weight: must be above 0, got -2.0; remove",
        ),
        (
            ["data.sources=[{path: a}, {path: b, max_epochs: 0}]"],
            "data.sources[1].max_epochs: must be above 0, got 0.0; leave it out for no limit",
        ),
        (["data.temperature=0.5"], "data.temperature: must be at least 1, got 0.5; 1 takes sources by their size"),
        (["data.sources=[{path: a/x}, {path: b/x}]"], "data.sources: two folders are called 'x'"),
        (["data.eval_samples=-1"], "data.eval_samples: must be at least 0, got -1; 0 takes all"),
        (["seed=-1"], "seed: must be from 0 to 2^63 - 1, got -1"),
        (["name=a/b"], "name: must be letters, digits, '_', '-' and '.', got 'a/b'; rename it"),
        (["name=.."], "name: must be letters, digits, '_', '-' and '.', got '..'; rename it"),
        (["deepspeed={optimizer: {}}"], "deepspeed.optimizer: follows from optimizer; set that instead"),
        (["deepspeed={zero_optimization: {stage: 2}}"], "follows from parallel.zero_stage; set that instead"),
    ],
)
def test_one_mistake_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    assert any(message in line for line in run_problems(tmp_path, overrides)), run_problems(tmp_path, overrides)
