"""A GPT of litgpt under Lightning Fabric, answering as ``benchmarks.contenders`` asks.

Usage: train_litgpt.py SETTINGS_JSON. The step is that of litgpt's pretraining: its model, its chunked cross-entropy,
fused AdamW, clipping by Fabric.
"""

import json
import sys
import time
import warnings

import lightning
import numpy as np
import torch
from litgpt import GPT, Config
from litgpt.pretrain import initialize_weights
from litgpt.utils import chunked_cross_entropy


def main(settings: dict) -> None:
    """Train until standard input is closed."""
    warnings.filterwarnings("ignore")
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="32-true")
    fabric.launch()
    size, batch = settings["seq_length"], settings["batch"]
    config = Config(
        name="benchmark",
        block_size=size,
        vocab_size=settings["vocab_size"],
        padded_vocab_size=settings["vocab_size"],
        n_layer=settings["num_layers"],
        n_head=settings["num_attention_heads"],
        n_embd=settings["hidden_size"],
        mlp_class_name="GptNeoxMLP",
        norm_class_name="LayerNorm",
        intermediate_size=4 * settings["hidden_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=True,
        gelu_approximate="tanh",
    )
    with fabric.init_module(empty_init=False):
        model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight  # tied, as GPT-2 has it
    # As its pretraining does; with torch's own values a step took ten times as long.
    initialize_weights(fabric, model, n_layer=config.n_layer, n_embd=config.n_embd)
    model = fabric.setup(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    optimizer = fabric.setup_optimizers(optimizer)
    tokens = np.memmap(settings["tokens_path"], dtype=np.uint16, mode="r")
    rows = iter(range(0, 10**12))

    def step() -> float:
        starts = [next(rows) * size % (len(tokens) - size - 1) for _ in range(batch)]
        block = torch.from_numpy(np.stack([tokens[start : start + size + 1] for start in starts]).astype(np.int64))
        logits = model(block[:, :size].contiguous())
        loss = chunked_cross_entropy(logits, block[:, 1:].contiguous())
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    for line in sys.stdin:
        begin = time.perf_counter()
        for _ in range(int(line)):
            loss = step()
        print(json.dumps({"seconds": time.perf_counter() - begin, "loss": loss}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
