"""Training speed of one rank: tokens/s, the ratio to the matrix-multiply peak, and to the same model in transformers.

``python -m benchmarks.training_speed`` or ``make bench``. Both train the same GPT-2 shape in fp32 with fused AdamW on
the same batches' sizes, in one process with all of its threads, in alternating rounds; medians are printed.
"""

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

ROUNDS, STEPS_A_ROUND = 5, 3
SHAPES = {
    "1 M parameters, vocabulary 2,048": {"num_layers": 4, "hidden_size": 128, "vocab_size": 2048, "seq_length": 128},
    "38 M parameters, vocabulary 50,257": {"num_layers": 4, "hidden_size": 512, "vocab_size": 50257, "seq_length": 256},
}
BATCH = 8


def main() -> None:
    """Print a table for each shape."""
    warnings.filterwarnings("ignore")
    from gptdist.device import megatron_on_cpu
    from gptdist.device.device import prepare_deepspeed

    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it
    prepare_deepspeed()
    megatron_on_cpu.install()
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        mesh = _mesh()
        for name, shape in SHAPES.items():
            _compare(name, shape, mesh)
        dist.destroy_process_group()


def _mesh():
    from datetime import timedelta

    import deepspeed

    from gptdist.mesh.groups import make_mesh
    from gptdist.mesh.layout import Layout

    deepspeed.init_distributed("gloo", verbose=False)
    return make_mesh(Layout(1, 1, 1, 1), timedelta(minutes=10))


def _compare(name: str, shape: dict[str, int], mesh) -> None:
    from gptdist.config.model import ModelConfig
    from gptdist.device.device import choose_device, peak_flops
    from gptdist.model.arithmetic import flops_per_token

    model = ModelConfig(num_attention_heads=shape["hidden_size"] // 64, **shape)
    device = choose_device("cpu", "fp32", 0)
    peak, _ = peak_flops(device) or (0.0, "")
    candidates = {"gptdist (DeepSpeed ZeRO-1)": _ours(model, mesh, device), "transformers": _theirs(model)}
    for step in candidates.values():
        step()
    seconds: dict[str, list[float]] = {label: [] for label in candidates}
    for _ in range(ROUNDS):
        for label, step in candidates.items():
            begin = time.perf_counter()
            for _ in range(STEPS_A_ROUND):
                step()
            seconds[label].append((time.perf_counter() - begin) / STEPS_A_ROUND)
    tokens = BATCH * model.seq_length
    print(f"\n{name}; batch {BATCH} x {model.seq_length}, {torch.get_num_threads()} threads")
    print(f"measured fp32 matrix-multiply peak: {peak / 1e9:,.0f} GFLOP/s")
    print(f"{'':<28}{'tokens/s':>10}{'of the peak':>13}")
    for label, times in seconds.items():
        speed = tokens / median(times)
        print(f"{label:<28}{speed:>10,.0f}{speed * flops_per_token(model) / peak:>13.2f}")
    ours, theirs = (median(times) for times in seconds.values())
    print(f"gptdist / transformers, tokens/s: {theirs / ours:.2f}")


def _batch(vocab_size: int, seq_length: int) -> torch.Tensor:
    return torch.randint(0, vocab_size, (BATCH, seq_length + 1), generator=torch.Generator().manual_seed(1))


def _ours(model, mesh, device) -> Callable[[], None]:
    from gptdist.config.run import RunConfig
    from gptdist.data.batches import Batch
    from gptdist.train.build import build_model
    from gptdist.train.engine import Engine

    config = RunConfig.from_tree(
        {
            "name": "benchmark",
            "model": model.tree(),
            "data": {"tokenizer": "", "sources": [{"path": str(Path("none"))}]},
            "batch": {"global_batch_size": BATCH, "micro_batch_size": BATCH},
            "training": {"train_steps": 1000, "device": "cpu"},
        }
    )
    engine = Engine(build_model(config, mesh, device), config, mesh, device.dtype)
    batch = Batch.of(list(_batch(model.vocab_size, model.seq_length).numpy()), device.torch_device)

    def step() -> None:
        engine.accumulate(engine.deepspeed(batch.tokens, batch.positions(), None, labels=batch.labels))

    return step


def _theirs(model) -> Callable[[], None]:
    from transformers import GPT2Config, GPT2LMHeadModel

    network = GPT2LMHeadModel(
        GPT2Config(
            n_layer=model.num_layers,
            n_embd=model.hidden_size,
            n_head=model.num_attention_heads,
            n_positions=model.seq_length,
            vocab_size=model.vocab_size,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            attn_implementation="sdpa",
        )
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, fused=True)
    tokens = _batch(model.vocab_size, model.seq_length)[:, :-1]

    def step() -> None:
        network(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
