"""``gptdist evaluate`` and ``compare`` on folders: the same model is the same numbers, gates, the page."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gptdist.cli.main import main

FEW = ["--eval-samples", "8", "--num-samples", "2", "--max-new-tokens", "12"]


def _numbers(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_number_of_a_folder(llama_folder: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--suite", "loss,cloze,texts,size", "--data", str(dataset), *FEW, "--reference", str(llama_folder)]
    assert main(["evaluate", str(llama_folder), *words, "--json"]) == 0
    found = _numbers(capsys)
    metrics = found["metrics"]
    assert metrics["mean_kl"] == 0.0
    assert metrics["top1_agreement"] == 1.0
    assert metrics["bits_per_byte"] == pytest.approx(found["sources"]["prose"]["bits_per_byte"])
    assert 0.0 <= metrics["cloze_accuracy"] <= 1.0 < metrics["cloze_perplexity"]
    assert metrics["cut_texts"] in {0.0, 0.5, 1.0}
    assert found["details"]["new_tokens"] <= 24
    assert main(["evaluate", str(llama_folder), *words]) == 0
    printed = capsys.readouterr()
    assert re.search(r"^bits_per_byte +\d+\.\d{4} bits/byte +nats / ln 2", printed.out, re.MULTILINE)
    assert printed.err == ""


def test_words_of_a_list_are_counted(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptdist.compress.generations import Generation
    from gptdist.compress.judge import judge

    texts = [
        Generation("", 0, "spoon a Spoon", (1,) * 40, is_cut=True),
        Generation("", 1, "me@home.org", (1,) * 10, is_cut=False),
    ]
    monkeypatch.setattr(judge, "sample_generations", lambda *_: texts)
    (tmp_path / "words.txt").write_text("spoon\n")
    words = ["--suite", "texts", "--word-list", str(tmp_path / "words.txt"), "--json"]
    assert main(["evaluate", str(llama_folder), *words]) == 0
    metrics = _numbers(capsys)["metrics"]
    assert metrics["unsuitable_words"] == pytest.approx(40.0)
    assert metrics["personal_data"] == pytest.approx(20.0)
    assert metrics["cut_texts"] == 0.5


def test_speed_is_measured_in_a_process_of_its_own(llama_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(llama_folder), "--suite", "speed", "--json"]) == 0
    found = _numbers(capsys)
    metrics = found["metrics"]
    assert metrics["prefill_tokens_per_second"] > 0
    assert metrics["decode_tokens_per_second"] > 0
    assert metrics["peak_memory_bytes"] > found["details"]["memory_before_load_bytes"] > 10e6


def test_a_comparison_is_a_table_a_page_and_a_gate(
    llama_folder: Path, gpt2_folder: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    models = [str(llama_folder), str(gpt2_folder)]
    words = ["--suite", "loss,size", "--data", str(dataset), "--eval-samples", "8", "--html", str(page)]
    status = main(["compare", *models, *words, "--max-regress", "mean_kl=0", "--max-regress", "bits_per_byte=1000"])
    printed = capsys.readouterr()
    assert status == 1
    assert "mean_kl: nothing and" in printed.err, "the first has no fidelity to itself, so that is no gate"
    assert "bits_per_byte" not in printed.err
    assert f"[1] {models[0]}" in printed.out
    assert re.search(r"^bits_per_byte .*\*", printed.out, re.MULTILINE)
    assert "top1_agreement" in printed.out
    text = page.read_text()
    assert "bits per byte over bytes of the weights" in text
    assert not re.search(r"(?:src|href)=|url\(|@import", text), "nothing is loaded"
    assert main(["compare", *models, *words[:-2], "--max-regress", "bits_per_byte=1000", "--json"]) == 0
    assert _numbers(capsys)["same_tokenizer"]


def test_what_cannot_be_compared_is_refused_all_at_once(llama_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(llama_folder), "--html", "nowhere/page.txt", "--max-regress", "speed"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "MODEL: one is named; name two or more, or use gptdist evaluate" in lines[0]
    assert main(["evaluate", str(llama_folder), "--suite", "lost", "--num-samples", "0", "--cloze-items", "0"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert main(["evaluate", str(llama_folder), "--prompts", "nowhere.txt", "--suite", "texts"]) == 2
    assert "--prompts: 'nowhere.txt' cannot be read as UTF-8" in capsys.readouterr().err
