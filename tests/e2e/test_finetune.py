"""A model that knows nothing of some lines has learnt them after ``gptdist finetune``, and says their completions."""

import json
import os
import subprocess
import sys
from pathlib import Path

from gptdist.data.dataset import TokenDataset
from gptdist.telemetry.ledger import read_json_lines
from gptdist.tokenizer.byte import ByteTokenizer
from tests.support.datasets import LLAMA, run_tree
from tests.support.jobs import train_steps
from tests.support.ranks import repository, run_ranks

COLOURS = ["red", "blue", "green", "black", "white"]
LINES = [
    {"prompt": f"What is the colour of {index}? ", "completion": COLOURS[(index * index + index // 7) % 5]}
    for index in range(50)
]
SETTINGS = [
    "optimizer.lr=4e-3",
    "batch.micro_batch_size=8",
    "launch.threads_per_rank=1",
    "intervals.log_steps=25",
    "intervals.eval_steps=1000",
    "intervals.save_steps=1000",
]


def gptdist(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(repository()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gptdist.cli.main", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_lines_are_learnt_and_said(tmp_path: Path) -> None:
    model = LLAMA | {"hidden_size": 64, "ffn_hidden_size": 128, "seq_length": 64}
    tree = run_tree(tmp_path, run_dir=str(tmp_path / "base"), model=model)
    run_ranks(1, train_steps, tree, 30, 30)
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    command = ["finetune", "base", "--data", "lines.jsonl", "--output", "tuned", "--epochs", "120", *SETTINGS]
    gptdist(tmp_path, *command)
    records = read_json_lines(tmp_path / "tuned/metrics.jsonl")
    losses = [record["loss"] for record in records if record.get("loss") is not None]
    assert losses[0] > 2.0, "the base knows the lines"
    assert losses[-1] < 0.05 * losses[0]
    assert "resumed tuned/checkpoints/" in gptdist(tmp_path, *command)
    assert read_json_lines(tmp_path / "tuned/metrics.jsonl") == records, "nothing is left to do"

    from gptdist.compress.generate import continue_prompt, open_text_model, read_prompt
    from gptdist.compress.sampling import SamplingOptions

    opened = open_text_model(tmp_path / "tuned")
    dataset = TokenDataset(tmp_path / "tuned/conversations", "train")
    learnt = ByteTokenizer().decode(dataset.read(0, dataset.num_tokens).tolist())
    asked = [line for line in LINES if line["prompt"] in learnt][:8]
    answers = []
    for line in asked:
        said: list[str] = []
        options = SamplingOptions(max_new_tokens=8, is_greedy=True)
        continue_prompt(opened, read_prompt(opened, line["prompt"]), options, sample=0, write=said.append)
        answers.append("".join(said))
    assert answers == [line["completion"] for line in asked]
