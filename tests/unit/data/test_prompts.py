"""Prompts are read and checked before any rank starts."""

from pathlib import Path

import pytest

from gptdist.data.prompts import read_prompts
from gptdist.errors import ConfigError
from gptdist.tokenizer.byte import ByteTokenizer
from tests.support.datasets import make_run_config

TOKENIZER = ByteTokenizer()


def _read(folder: Path, **generation):
    changes = {"generation": {"max_new_tokens": 4, **generation}, "intervals": {"sample_steps": 1}}
    return read_prompts(make_run_config(folder, **changes), TOKENIZER)


def test_prompts_of_the_config_and_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("ab\n\nä\n", encoding="utf-8")
    expected = [("ab", (97, 98)), ("", (TOKENIZER.eod_id,)), ("ä", (0xC3, 0xA4))]
    for found in (
        _read(tmp_path, prompts=["ab", "", "ä"]),
        _read(tmp_path, prompts_file=str(tmp_path / "prompts.txt")),
    ):
        assert [(prompt.text, prompt.ids) for prompt in found] == expected
    assert read_prompts(make_run_config(tmp_path), TOKENIZER) == []


def test_prompts_that_cannot_be_continued(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompts: prompt 2 has 32 tokens, model.seq_length is 32; shorten"):
        _read(tmp_path, prompts=["a", "b" * 32])
    path = tmp_path / "prompts.txt"
    with pytest.raises(ConfigError, match=r"prompts_file: '.*prompts.txt' cannot be read as UTF-8 \(.*No such"):
        _read(tmp_path, prompts_file=str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"prompts.txt' cannot be read as UTF-8 .*mend or change the path"):
        _read(tmp_path, prompts_file=str(path))
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"prompts.txt' is empty; write a prompt on each line"):
        _read(tmp_path, prompts_file=str(path))
