"""GPT-2 by the Trainer of transformers, answering as ``benchmarks.contenders`` asks.

Usage: train_transformers.py SETTINGS_JSON. The Trainer runs one long training; a callback holds it between rounds.
"""

import json
import sys
import tempfile
import time
import warnings

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class Samples(torch.utils.data.Dataset):
    """Windows of a file of token ids."""

    def __init__(self, path: str, seq_length: int) -> None:
        """Map the file."""
        self._tokens, self._size = np.memmap(path, dtype=np.uint16, mode="r"), seq_length

    def __len__(self) -> int:
        """Return enough for any benchmark; windows come again."""
        return 1_000_000

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return inputs and labels, which the model shifts itself."""
        start = index * self._size % (len(self._tokens) - self._size)
        row = torch.from_numpy(self._tokens[start : start + self._size].astype(np.int64))
        return {"input_ids": row, "labels": row}


class Rounds(TrainerCallback):
    """Waits for a number of steps, and says how long they took."""

    def __init__(self) -> None:
        """Begin before the first round."""
        self.left, self.steps, self.begin = 0, 0, 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Wait for the next round where one is over."""
        if self.left == 0:
            self.left = self.steps = int(sys.stdin.readline() or 0)
            if not self.steps:
                sys.exit()
            self.begin = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Answer at the end of a round."""
        self.left -= 1
        if self.left == 0:
            print(json.dumps({"seconds": time.perf_counter() - self.begin}), flush=True)


def main(settings: dict) -> None:
    """Train until standard input is closed."""
    warnings.filterwarnings("ignore")
    model = GPT2LMHeadModel(
        GPT2Config(
            n_layer=settings["num_layers"],
            n_embd=settings["hidden_size"],
            n_head=settings["num_attention_heads"],
            n_positions=settings["seq_length"],
            vocab_size=settings["vocab_size"],
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            attn_implementation="sdpa",
            use_cache=False,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=1_000_000,
            per_device_train_batch_size=settings["batch"],
            optim="adamw_torch_fused",
            learning_rate=3e-4,
            weight_decay=0.1,
            max_grad_norm=1.0,
            save_strategy="no",
            logging_steps=1_000_000,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        samples = Samples(settings["tokens_path"], settings["seq_length"])
        Trainer(model=model, args=arguments, train_dataset=samples, callbacks=[Rounds()]).train()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
