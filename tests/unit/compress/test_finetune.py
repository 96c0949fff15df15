"""``gptdist finetune`` makes a run config of any model and conversations, and the same command finds it again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from data_prep.conversations.dataset import ConversationOptions, prepare_conversations
from data_prep.conversations.encoded import encode
from data_prep.conversations.templates import template_named
from data_prep.conversations.turns import read_conversations
from gptdist.checkpoint.manifest import read_manifest
from gptdist.cli.main import main
from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from gptdist.data.batches import Batch
from gptdist.data.dataset import TokenDataset
from gptdist.data.rules import SampleRules
from gptdist.tokenizer.byte import ByteTokenizer
from launch.checks import check_run
from tests.support.datasets import GPT2, LLAMA, write_dataset
from tests.unit.compress.exported import export, saved_run
from tests.unit.compress.small_models import TrainedModel, llama, megatron_model, trained

BYTES = ByteTokenizer()


def write_pairs(path: Path, count: int = 60) -> Path:
    lines = [{"prompt": f"{index}?" + "p" * (index % 5), "completion": "c" * (1 + index % 7)} for index in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its export, and conversations."""
    folder = tmp_path_factory.mktemp("finetune")
    run_folder, _ = saved_run(folder, LLAMA)
    assert export(run_folder) == 0
    write_pairs(folder / "pairs.jsonl")
    return folder


def command(folder: Path, model: Path, output: str, *more: str, data: str = "pairs.jsonl") -> int:
    words = ["finetune", str(model), "--data", str(folder / data), "--output", str(folder / output), "--dry-run"]
    return main([*words, *more])


def refusal(capsys: pytest.CaptureFixture[str], status: int) -> str:
    assert status == 2
    return capsys.readouterr().err


def written(folder: Path, output: str) -> RunConfig:
    return load_config(RunConfig, folder / output / "finetune.yaml")


def test_a_hugging_face_folder_is_imported_once_and_the_same_command_finds_its_config(folder: Path, capsys) -> None:
    options = ("--epochs", "2", "--lora-rank", "4", "optimizer.lr=1e-3")
    assert command(folder, folder / "out", "tuned", *options) == 0
    shown = capsys.readouterr().out
    assert "conversations in" in shown
    assert f"gptdist launch local {folder / 'tuned/finetune.yaml'} optimizer.lr=1e-3" in shown
    config = written(folder, "tuned")
    assert config.lora is not None
    assert (config.lora.rank, config.lora.alpha, config.optimizer.lr) == (4, 8.0, 1e-3)
    assert config.data.separate_documents
    samples = TokenDataset(folder / "tuned/conversations", "train").manifest.packing["train"]["samples"]
    assert config.training.train_steps == -(-2 * samples // config.batch.global_batch_size)
    assert config.intervals.eval_steps == max(1, round(samples / config.batch.global_batch_size))
    assert config.training.init_from == folder / "tuned/base"
    assert read_manifest(folder / "tuned/base").origin.kind == "huggingface"
    check_run(config)
    path = folder / "tuned/finetune.yaml"
    path.write_text(path.read_text().replace("log_steps: 1", "log_steps: 7"))
    before = path.read_bytes(), (folder / "tuned/base/manifest.json").stat().st_mtime_ns
    assert command(folder, folder / "out", "tuned", *options) == 0
    assert before == (path.read_bytes(), (folder / "tuned/base/manifest.json").stat().st_mtime_ns), "what people edit"
    assert "conversations in" not in refusal(capsys, command(folder, folder / "out", "tuned", "--epochs", "3"))


def test_another_command_or_other_lines_are_refused(folder: Path, tmp_path: Path, capsys) -> None:
    pairs = write_pairs(tmp_path / "lines.jsonl")
    again = ["finetune", str(folder / "run"), "--data", str(pairs), "--output", str(tmp_path / "a"), "--dry-run"]
    assert main(again) == 0
    assert main([*again, "--epochs", "5", "--lora-rank", "2"]) == 2
    assert "finetune.yaml: epochs: 3.0 → 5.0, lora_rank: None → 2; edit that file, or choose" in capsys.readouterr().err
    write_pairs(pairs, 61)
    assert main(again) == 2
    assert "a/conversations: holds what other files or options made" in capsys.readouterr().err


def test_a_runs_checkpoint_is_trained_whole_on_data_that_is_there(folder: Path, tmp_path: Path, capsys) -> None:
    prepared = ["finetune", "prep", str(folder / "pairs.jsonl"), "--tokenizer", str(folder / "data/tokenizer")]
    assert main([*prepared, "--output", str(folder / "made"), "--seq-length", "16"]) == 0
    assert "train       " in capsys.readouterr().out
    assert command(folder, folder / "run", "whole", "batch.global_batch_size=4", data="made") == 0
    config = written(folder, "whole")
    assert config.lora is None
    assert config.model.seq_length == 16, "of rotary positions fewer may be taken"
    assert (config.optimizer.lr, config.batch.global_batch_size) == (2e-5, 4)
    check_run(config)
    found = refusal(capsys, command(folder, folder / "run", "b", "--seq-length", "24", data="made"))
    assert "--seq-length: 24, but " in found
    assert "is packed for 16; leave it out" in found


def test_models_and_data_that_do_not_go_together_are_one_line(folder: Path, tmp_path: Path, capsys) -> None:
    other = write_dataset(tmp_path / "other", documents=40)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"tokenizer_fingerprint": "1" * 64}))
    words = ["finetune", str(folder / "run"), "--output", str(tmp_path / "x"), "--dry-run"]
    assert main([*words, "--data", str(other)]) == 2
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert "other: made with tokenizer 111111111111, the model's is " in found
    assert main([*words[:1], str(tmp_path / "none"), "x", *words[2:], "--epochs", "0", "--lora-rank", "0"]) == 2
    lines = capsys.readouterr().err
    for part in (
        "none: no such run, checkpoint or Hugging Face folder",
        "--epochs: must be above 0, got 0.0",
        "--lora-rank: must be at least 1, got 0",
        "--data: missing; name a file",
        "x: is no key=value; name files with --data",
    ):
        assert part in lines
    assert main([*words, "--data", str(folder / "pairs.jsonl"), "parallel.pipeline_parallel_size=2"]) == 2
    assert "does not divide" in capsys.readouterr().err
    assert not (tmp_path / "x/finetune.yaml").exists()
    assert main(["finetune", "prep", "--output", str(tmp_path / "y"), "--data", "a"]) == 2
    lines = capsys.readouterr().err
    for part in (
        "no FILE; name JSON Lines",
        "--data: prep takes its files",
        "--tokenizer: missing",
        "--seq-length: mis",
    ):
        assert part in lines


def test_positions_that_are_weights_cannot_be_more_or_fewer(tmp_path: Path, capsys) -> None:
    saved_run(tmp_path, GPT2)
    write_pairs(tmp_path / "pairs.jsonl")
    found = refusal(capsys, command(tmp_path, tmp_path / "run", "a", "--seq-length", "16"))
    assert "--seq-length: 16, but positions are weights of this model, which has 32; leave it out" in found
    assert command(tmp_path, tmp_path / "run", "a") == 0
    assert written(tmp_path, "a").model.seq_length == 32


def test_other_weights_in_the_runs_folder_are_refused(folder: Path, tmp_path: Path, capsys) -> None:
    assert command(folder, folder / "out", "twice") == 0
    (folder / "twice/finetune.yaml").unlink()
    other = tmp_path / "renamed"
    other.symlink_to(folder / "out")
    assert "twice/base: was imported from" in refusal(capsys, command(folder, other, "twice"))
    shown = refusal(capsys, command(folder, folder / "out", "twice", "--tokenizer", str(folder / "data/tokenizer")))
    assert f"twice/tokenizer: is not the tokenizer of {folder / 'out'} any more" in shown


def test_datasets_that_do_not_go_together_are_refused(folder: Path, tmp_path: Path, capsys) -> None:
    names = []
    for length in (16, 24):
        options = ConversationOptions(length)
        prepare_conversations([folder / "pairs.jsonl"], tmp_path / f"for{length}", BYTES, options)
        names += ["--data", str(tmp_path / f"for{length}")]
    words = ["finetune", str(folder / "run"), "--output", str(tmp_path / "x"), "--dry-run"]
    assert main([*words, *names]) == 2
    assert "--data: packed for [16, 24] tokens; prepare all for one length" in capsys.readouterr().err
    path = tmp_path / "for16/manifest.json"
    tree = json.loads(path.read_text())
    del tree["splits"]["train"]
    path.write_text(json.dumps(tree))
    assert main([*words, *names[:2]]) == 2
    assert "for16: has no split 'train', only validation; add data" in capsys.readouterr().err


@pytest.mark.parametrize("make", [llama, trained])
def test_packed_conversations_lose_what_each_loses_alone(make: Callable[[], TrainedModel], tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "pairs.jsonl", 12)
    prepare_conversations([path], tmp_path / "data", BYTES, ConversationOptions(24, validation_fraction=0.2))
    dataset = TokenDataset(tmp_path / "data", "train")
    samples = dataset.manifest.packing["train"]["samples"]
    assert dataset.manifest.splits["train"].documents > samples > 1, "several conversations share a sample"
    said = [(one.tokens, one.is_learnt) for one in encode(read_conversations([path]), template_named("plain"), BYTES)]
    within = {dataset.read(span.first_token, 4).tobytes() for span in dataset.documents_in(0, 24 * samples)}
    alone = [(tokens, learnt) for tokens, learnt in said if tokens[:4].tobytes() in within]
    rules = SampleRules(document_end=BYTES.eod_id)

    with megatron_model(make()) as (model, _), torch.inference_mode():

        def nats(row: np.ndarray, rules: SampleRules) -> float:
            batch = Batch.of([row], torch.device("cpu"), rules)
            loss = model(batch.tokens, batch.positions(), batch.attention_mask(), labels=batch.labels)
            return loss.item() * batch.labels.numel()

        packed = sum(nats(dataset.read_sample(24 * index, 25), rules) for index in range(samples))
        apart = sum(nats(np.where(learnt, tokens, ~tokens), SampleRules()) for tokens, learnt in alone)
        together = sum(nats(dataset.read_sample(24 * index, 25), SampleRules()) for index in range(samples))
    assert packed == pytest.approx(apart, rel=1e-5)
    assert abs(together - apart) > 1e-3 * apart, "without the reset conversations see each other"


def test_yaml_of_a_config_is_plain(folder: Path) -> None:
    assert command(folder, folder / "run", "plain") == 0
    tree: dict[str, Any] = YAML(typ="safe", pure=True).load((folder / "plain/finetune.yaml").read_text())
    assert RunConfig.from_tree(tree).name == "plain"
