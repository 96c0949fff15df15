"""Continuing a prompt: which tokens, how many, and how the text comes out."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdist.cli.main import main
from gptdist.compress import generate
from gptdist.compress.export import ExportOptions, export_model
from gptdist.compress.generate import Prompt, TextModel, continue_prompt, open_text_model, read_prompt
from gptdist.compress.hf_model import build_huggingface_model
from gptdist.compress.hf_tokenizer import huggingface_tokenizer
from gptdist.compress.sampling import SamplingOptions
from gptdist.errors import CheckpointError, ConfigError, ExportError
from gptdist.tokenizer.byte import ByteTokenizer
from tests.unit.compress.small_models import Logits, TrainedModel, llama, trained

GREEDY = SamplingOptions(is_greedy=True, max_new_tokens=8)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return llama()


@pytest.fixture(scope="module")
def text_model(model: TrainedModel) -> TextModel:
    network = build_huggingface_model(model.config, model, eod_id=256)
    return TextModel(network, huggingface_tokenizer(ByteTokenizer(), model.config.seq_length))


@pytest.fixture
def exported(model: TrainedModel, megatron_logits: Logits, sample_tokens: np.ndarray, tmp_path: Path) -> Path:
    export_model(
        model,
        tmp_path / "out",
        tokenizer=ByteTokenizer(),
        sample_tokens=sample_tokens,
        options=ExportOptions(),
        logits=partial(megatron_logits, model),
    )
    return tmp_path / "out"


def continuation(text_model: TextModel, prompt: Prompt, options: SamplingOptions, sample: int = 0) -> str:
    pieces: list[str] = []
    continue_prompt(text_model, prompt, options, sample=sample, write=pieces.append)
    return "".join(pieces)


def test_greedy_takes_megatrons_likeliest_token_with_the_cache(
    text_model: TextModel, model: TrainedModel, megatron_logits: Logits
) -> None:
    ids = [*b"def "]
    for _ in range(8):
        logits = megatron_logits(model, torch.tensor([ids]), "float32")[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] == 256:
            break
    expected = bytes(token for token in ids[4:] if token < 256).decode(errors="replace")
    assert continuation(text_model, read_prompt(text_model, "def "), GREEDY) == expected


def test_same_seed_same_text_and_samples_differ(text_model: TextModel) -> None:
    prompt, options = read_prompt(text_model, "def "), SamplingOptions(max_new_tokens=12, seed=5)
    first = continuation(text_model, prompt, options)
    assert continuation(text_model, prompt, options) == first
    assert continuation(text_model, prompt, options, sample=1) != first
    later = SamplingOptions(max_new_tokens=12, seed=6)
    assert continuation(text_model, prompt, later) == continuation(text_model, prompt, options, sample=1)


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_each_way_to_narrow_the_choice_reaches_the_likeliest(text_model: TextModel, narrow: dict[str, float]) -> None:
    prompt = read_prompt(text_model, "def ")
    narrowed = SamplingOptions(max_new_tokens=8, **narrow)
    assert continuation(text_model, prompt, narrowed) == continuation(text_model, prompt, GREEDY)


class Recorder:
    """Takes the place of the text stream and keeps the ids."""

    def __init__(self, tokenizer: object, prompt: tuple[int, ...], write: object) -> None:
        self.put = lambda tokens: write(tokens.reshape(-1).tolist())  # type: ignore[operator]

    def end(self) -> None: ...


def test_all_tokens_are_in_the_choice_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own default would keep the 50 likeliest only."""
    model = trained()
    model.weights["embedding.word_embeddings.weight"].zero_()  # tied, so that all logits are 0
    network = build_huggingface_model(model.config, model, eod_id=256)
    text_model = TextModel(network, huggingface_tokenizer(ByteTokenizer(), 24))
    monkeypatch.setattr(generate, "_TextStream", Recorder)
    seen: set[int] = set()
    for sample in range(30):
        options = SamplingOptions(max_new_tokens=20)
        continue_prompt(text_model, Prompt((1,), 23), options, sample=sample, write=seen.update)
    assert len(seen) > 150


def test_generation_stops_at_the_last_position(text_model: TextModel) -> None:
    prompt = read_prompt(text_model, "x" * 20)
    assert prompt.room == 4
    options = SamplingOptions(is_greedy=True, max_new_tokens=100)
    assert continue_prompt(text_model, prompt, options, sample=0, write=lambda _: None) <= 4


def test_empty_prompt_starts_a_document(text_model: TextModel) -> None:
    assert read_prompt(text_model, "") == Prompt((256,), 23)


def test_long_prompt_is_refused(text_model: TextModel) -> None:
    with pytest.raises(ConfigError, match="--prompt: 24 tokens, but the model knows 24 positions; shorten it to 23"):
        read_prompt(text_model, "x" * 24)


def test_characters_are_written_whole(text_model: TextModel) -> None:
    pieces: list[str] = []
    stream = generate._TextStream(text_model.tokenizer, (97,), pieces.append)
    stream.put(torch.tensor([[97]]))
    for byte in "b🙂 c".encode():
        stream.put(torch.tensor([byte]))
    stream.put(torch.tensor([0xF0]))
    stream.end()
    assert pieces == ["b", "🙂", " ", "c", "\ufffd"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens: must be at least 1, got 0"),
        ({"num_samples": -1}, "--num-samples: must be at least 1, got -1"),
        ({"temperature": 0.0}, "--temperature: must be above 0, got 0; use --greedy for the likeliest token"),
        (
            {"temperature": float("nan")},
            "--temperature: must be above 0, got nan; use --greedy for the likeliest token",
        ),
        ({"top_k": -1}, "--top-k: must be at least 0, got -1; 0 is all tokens"),
        ({"top_p": 1.5}, "--top-p: must be above 0 and at most 1, got 1.5; 1 is all tokens"),
        ({"seed": -1}, "--seed: must be from 0 to 2^63 - 1, got -1"),
        ({"is_greedy": True, "num_samples": 2}, "--num-samples: 2 greedy samples are all the same; leave out --greedy"),
    ],
)
def test_bad_values_are_refused(values: dict[str, float], message: str) -> None:
    assert SamplingOptions(**values).problems() == [message]


def test_command_prints_prompt_and_samples(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(exported), "--prompt", "def ", "--max-new-tokens", "30", "--num-samples", "2", "--seed", "3"]
    assert main(["generate", *arguments]) == 0
    captured = capsys.readouterr()
    assert "--- sample 1 of 2, seed 3 ---\ndef " in captured.out
    assert "--- sample 2 of 2, seed 4 ---\ndef " in captured.out
    assert (
        "the model knows 24 positions and the prompt takes 4; stopping after 20 new tokens instead of 30"
        in captured.err
    )

    assert main(["generate", *arguments]) == 0
    assert capsys.readouterr().out == captured.out


def test_command_reads_a_prompt_file(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (exported / "prompt.txt").write_text("é = 1\n", encoding="utf-8")
    assert main(["generate", str(exported), "--prompt-file", str(exported / "prompt.txt"), "--greedy"]) == 0
    assert capsys.readouterr().out.startswith("é = 1\n")


def test_a_character_the_terminal_lacks_does_not_stop_it(
    exported: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptdist.cli import generate as command

    class Ascii:
        encoding = "ascii"
        written = ""

        def write(self, text: str) -> None:
            self.written += text.encode("ascii").decode()

        def isatty(self) -> bool:
            return False

    stdout = Ascii()
    monkeypatch.setattr(sys, "stdout", stdout)
    command._write("é!")
    assert stdout.written == "?!"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--prompt", "x"], "nowhere: does not exist; name a run, a checkpoint or a Hugging Face folder"),
        ([".", "--prompt", "\udcff"], "--prompt: not UTF-8 at character 0; give UTF-8 text"),
        ([".", "--prompt-file", "missing.txt"], "missing.txt: No such file or directory; check the path"),
        ([".", "--prompt-file", "latin1.txt"], "latin1.txt: not UTF-8 at byte 1; save it as UTF-8"),
        ([".", "--prompt", "x", "--top-p", "0"], "--top-p: must be above 0 and at most 1, got 0; 1 is all tokens"),
        ([".", "--prompt", "x"], ".: holds no checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin1.txt").write_bytes(b"a\xe9")
    assert main(["generate", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gptdist generate: error: {message}")
    assert error.count("\n") == 1


def test_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist; name a run, a checkpoint or a Hugging Face folder"):
        open_text_model(tmp_path / "nowhere")


def test_exported_folder_without_its_tokenizer_is_refused(exported: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (exported / name).unlink()
    with pytest.raises(ExportError, match="out: its tokenizer"):
        open_text_model(exported)


def test_checkpoint_is_continued_without_an_export(
    model: TrainedModel, text_model: TextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ByteTokenizer().save(tmp_path / "data/tokenizer")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generate, "resolve_checkpoint", lambda path: path)
    monkeypatch.setattr(generate, "CheckpointReader", lambda _: model)
    opened = open_text_model(tmp_path)
    prompt = read_prompt(opened, "def ")
    assert continuation(opened, prompt, GREEDY) == continuation(text_model, prompt, GREEDY)


def test_gpt2_continues_too() -> None:
    model = trained()
    network = build_huggingface_model(model.config, model, eod_id=256)
    text_model = TextModel(network, huggingface_tokenizer(ByteTokenizer(), 24))
    assert text_model.seq_length == 24
    assert continuation(text_model, read_prompt(text_model, "def "), GREEDY)
