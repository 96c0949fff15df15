"""What a user can get wrong: one line that says where and what to do, status 2, before any rank starts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gptdist.cli.main import COMMANDS, main
from gptdist.data.shards import TokenShard
from tests.support.datasets import make_run_config, run_tree
from tests.support.ranks import repository
from tests.support.step_folders import numbered, rewrite_manifest, write_step_folder


def _command(folder: Path, *words: str) -> tuple[int, list[str]]:
    """Run ``gptdist`` as a process in which torch cannot be imported: no rank can have been started."""
    code = "import sys; sys.modules['torch'] = None; from gptdist.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stderr.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run_tree(tmp_path, launch={"ranks_per_node": 2})))
    return tmp_path


def _expect(folder: Path, words: list[str], *messages: str) -> None:
    status, lines = _command(folder, *words)
    assert status == 2, lines
    assert len(lines) == len(messages), lines
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(f"gptdist {words[0]}: error: "), line
        assert message in line


LAUNCH = ["launch", "local", "run.yaml"]


def test_unknown_key(folder: Path) -> None:
    _expect(folder, [*LAUNCH, "batch.micro_batchsize=4"], "unknown key; did you mean 'micro_batch_size'?")


def test_all_mistakes_at_once(folder: Path) -> None:
    _expect(
        folder,
        [*LAUNCH, "optimizer.lr=-1", "intervals.log_steps=0"],
        "optimizer.lr: must be above 0, got -1.0",
        "intervals.log_steps: must be at least 1, got 0",
    )


def test_unknown_fields_and_kinds_of_optimizer_and_schedule(folder: Path) -> None:
    _expect(
        folder,
        [*LAUNCH, "optimizer.beta_2=0.9", "optimizer.kind=adamx", "schedule.warmup=5", "schedule.kind=cosin"],
        "optimizer.kind: input should be 'adamw', 'lion', 'muon' or 'adafactor', got \"adamx\"; change the value",
        "optimizer.beta_2: unknown key; did you mean 'beta2'?",
        "schedule.kind: input should be 'cosine', 'linear', 'inverse_sqrt', 'wsd' or 'constant', got \"cosin\"",
        "schedule.warmup: unknown key; did you mean 'warmup_steps'?",
    )


def test_batches_and_ramps_that_are_illegal_at_any_step(folder: Path) -> None:
    _expect(
        folder,
        [
            *LAUNCH,
            "parallel.context_parallel_size=2",
            "batch.global_batch_size=7",
            "batch.ramp=[{until_samples: 8, global_batch_size: 4}, {until_samples: 16, global_batch_size: 5}]",
            "batch.seq_length_ramp=[{until_samples: 4, seq_length: 2}, {until_samples: 8, seq_length: 8}]",
        ],
        "parallel.context_parallel_size (2): batch.seq_length_ramp[0].seq_length (2) is no multiple of 2 x 2; change",
        "batch.global_batch_size (7) is no multiple of batch.micro_batch_size (2) x data-parallel size (1) = 2; change",
        "batch.ramp[1].global_batch_size (5) is no multiple of batch.micro_batch_size (2) x data-parallel size (1) = 2",
    )


def test_context_longer_than_the_documents(folder: Path) -> None:
    shards = [folder / "data" / source / f"train-{shard:05d}" for source in ("prose", "code") for shard in (0, 1)]
    longest = max(int(TokenShard(shard).lengths.max()) for shard in shards)
    _expect(
        folder,
        [*LAUNCH, "model.seq_length=1024", "data.separate_documents=true", "data.eval_samples=1"],
        "model.seq_length: 1024, but with data.separate_documents no token sees more than its document, and the "
        f"longest of all sources has {longest} tokens: more than half of the positions would never be trained; set it "
        f"to {longest} or less and batch.micro_batch_size higher, or leave separate_documents out",
    )


def test_layout_that_does_not_divide(folder: Path) -> None:
    _expect(folder, [*LAUNCH, "parallel.tensor_parallel_size=3"], "does not divide the number of ranks (2)",
            "does not divide model.num_attention_heads (4)", "does not divide model.num_query_groups (4)",
            "does not divide model.ffn_hidden_size (128)")  # fmt: skip


def test_missing_config(folder: Path) -> None:
    _expect(folder, ["launch", "local", "gone.yaml"], "gone.yaml: no such config file; check the path")


def test_missing_data(folder: Path) -> None:
    shutil.rmtree(folder / "data" / "prose")
    _expect(folder, LAUNCH, "data.sources[0].path: folder")


def test_shard_of_another_size(folder: Path) -> None:
    path = folder / "data" / "code" / "train-00000.bin"
    path.write_bytes(path.read_bytes() + b"\0\0")
    _expect(folder, LAUNCH, "train-00000.bin")


def test_shard_of_another_content_is_found_by_verify(folder: Path) -> None:
    path = folder / "data" / "code" / "train-00000.bin"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    status, lines = _command(folder, "data", "verify", "data/code")
    assert status == 2
    assert any("train-00000.bin" in line for line in lines), lines


def test_vocabulary_larger_than_the_models(folder: Path) -> None:
    _expect(folder, [*LAUNCH, "model.vocab_size=200"], "model.vocab_size: 200 is smaller than the vocabulary")


def test_another_tokenizer(folder: Path) -> None:
    path = folder / "data" / "prose" / "manifest.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"tokenizer_fingerprint": "f" * 64}))
    _expect(folder, LAUNCH, "prose: made with tokenizer ffffffffffff, but data.tokenizer")


def _prep(folder: Path, documents: str) -> list[str]:
    """Return the command that prepares the text files of a folder."""
    source = {"name": "a", "kind": "files", "paths": [documents], "include": ["**/*.txt"]}
    config = {"name": "x", "output_dir": "out", "tokenizer": {"kind": "byte"}, "sources": [source]}
    (folder / "prep.yaml").write_text(yaml.safe_dump(config))
    return ["prep", "run", "prep.yaml"]


def test_empty_source(folder: Path) -> None:
    (folder / "empty").mkdir()
    _expect(folder, _prep(folder, "empty"), "empty: no file below empty matches **/*.txt; change paths or include")
    assert not (folder / "out" / "a").exists(), "nothing that looks finished"


def test_non_utf8_file(folder: Path) -> None:
    (folder / "texts").mkdir()
    (folder / "texts" / "good.txt").write_text("good text " * 50)
    (folder / "texts" / "latin.txt").write_bytes(b"caf\xe9 " * 50)
    _expect(folder, _prep(folder, "texts"), "latin.txt: not UTF-8 at byte 3")


def test_checkpoint_that_is_not_there(folder: Path) -> None:
    for command in (
        ["checkpoint", "verify", "nothing"],
        ["checkpoint", "list", "nothing"],
        ["evaluate", "nothing"],
        ["export", "nothing", "--to", "hf", "--output", "exported"],
    ):
        _expect(folder, command, "nothing: holds no checkpoint; name a run folder")


def test_model_that_is_not_there(folder: Path) -> None:
    for command in (
        ["generate", "nothing", "--prompt", "x"],
        ["export", "nothing", "--to", "gguf", "--output", "exported"],
        ["quantize", "nothing", "--scheme", "int8", "--output", "small"],
        ["prune", "weights", "nothing", "--method", "magnitude", "--ratio", "0.5", "--output", "small"],
        ["prune", "structure", "nothing", "--target-parameters", "0.5", "--output", "small"],
        ["prune", "units", "nothing", "--ratio", "0.5", "--output", "small"],
        ["prune", "sensitivity", "nothing", "--output", "small"],
    ):
        _expect(folder, command, "nothing: does not exist; name a run, a checkpoint or a Hugging Face folder")
    said = (f"{name}: does not exist; name a run" for name in ("nothing", "none"))
    _expect(folder, ["compare", "nothing", "none"], *said)
    (folder / "empty").mkdir()
    _expect(folder, ["generate", "empty", "--prompt", "x"], "empty: holds no checkpoint; name a run folder")


def test_another_preset_than_the_checkpoints(folder: Path) -> None:
    step = write_step_folder(folder / "run" / "checkpoints" / "step_00000003", {"x": numbered(1, 2, 2)})
    tree = json.loads((step / "manifest.json").read_text())
    tree["config"]["model"] = make_run_config(folder).model.tree()
    rewrite_manifest(step, tree)
    end = "; a run keeps its model, set another run_dir for a new one"
    message = f"{step}: model.num_layers: 2 → 3{end}"
    _expect(folder, [*LAUNCH, "model.num_layers=3"], message)
    message = f"{step}: model.activation: gelu_tanh → gelu, model.num_layers: 2 → 3{end}"
    _expect(folder, [*LAUNCH, "model.num_layers=3", "model.hidden_dropout=0.1", "model.activation=gelu"], message)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert f"gptdist {command}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["nonsense"], ["launch"], ["launch", "moon"], ["prep"]])
def test_wrong_words_are_status_2(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 2
    assert "usage: gptdist" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from gptdist.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'ruamel', 'deepspeed', 'transformers', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository(), capture_output=True)


def test_a_rank_says_it_once_and_exits_with_2(folder: Path) -> None:
    """A rank checks the config for itself, against the ranks that there really are."""
    argv = [sys.executable, "-m", "gptdist.train", "run.yaml", "parallel.zero_stage=7"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gptdist: error: run.yaml: parallel.zero_stage: must be 0, 1, 2 or 3, got 7",
    ]
