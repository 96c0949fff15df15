"""The commands, as a user types them."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.executors.executor import Batch
from data_prep.executors.slurm import array_script
from data_prep.progress import Progress
from gptdist.cli.main import main
from tests.unit.data_prep.made_corpus import make_texts, write_texts

CONFIGS = Path(__file__).parents[3] / "configs" / "data"


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A prepared folder; the working folder is its parent."""
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "my_documents", [text * 3 for text in make_texts(400)])
    overrides = ["tokenizer.vocab_size=400", "validation_fraction=0.1", "shard_tokens=5000"]
    assert main(["prep", "run", str(CONFIGS / "folder.yaml"), *overrides]) == 0
    out = capsys.readouterr().out
    assert "tokenizer bpe with " in out
    assert "written to data/folder" in out
    return tmp_path / "data/folder/documents"


def test_the_folder_template_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prep", "run", str(CONFIGS / "folder.yaml")]) == 2
    error = capsys.readouterr().err
    assert error == ("gptdist prep: error: sources[0] 'documents': path 'my_documents' does not exist; change paths\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("words", [["--workers", "1", "seed=no"], ["seed=no", "--workers", "1"]])
def test_overrides_may_stand_anywhere(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prep", "run", str(CONFIGS / "folder.yaml"), *words]) == 2
    assert 'seed: input should be a valid integer, got "no"' in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--workers", "1", "word"], ["--wurkers", "seed=1"]])
def test_other_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["prep", "run", str(CONFIGS / "folder.yaml"), *words])
    assert left.value.code == 2
    assert (
        f"unrecognized arguments: {' '.join(words[-1:] if words[0] == '--workers' else words)}"
        in capsys.readouterr().err
    )


def test_verify_and_show(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", str(prepared)]) == 0
    assert f"{prepared}: whole, " in capsys.readouterr().out
    assert main(["data", "show", str(prepared), "--document", "3"]) == 0
    head, text = capsys.readouterr().out.split("\n", 1)
    path = head.split(": ")[1].split(";")[0]
    assert text == Path(path).read_text() + "\n"
    assert main(["data", "show", str(prepared), "--split", "validation", "--tokens", "5:200"]) == 0
    assert capsys.readouterr().out.startswith("# validation-00000 document 0: my_documents/")


def test_damage_is_named_and_exits_2(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = prepared / "train-00001.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert main(["data", "verify", str(prepared / "nothing"), str(prepared)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"gptdist data: error: {prepared}/nothing/manifest.json: missing")
    assert second.startswith(f"gptdist data: error: {path}: SHA-256")


def test_another_tokenizer_is_refused(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gptdist.tokenizer.byte import ByteTokenizer

    ByteTokenizer().save(tmp_path / "bytes")
    arguments = ["data", "show", str(prepared), "--document", "0", "--tokenizer", str(tmp_path / "bytes")]
    assert main(arguments) == 2
    assert "name the right one with --tokenizer" in capsys.readouterr().err


def test_a_range_has_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("5", "5:", "a:3", "5:0"):
        with pytest.raises(SystemExit, match="2"):
            main(["data", "show", "x", "--tokens", text])
        assert f"'{text}' is not START:COUNT" in capsys.readouterr().err


def test_a_misspelled_key_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prep", "run", str(CONFIGS / "demo.yaml"), "sede=3"]) == 2
    assert capsys.readouterr().err.endswith("demo.yaml: sede: unknown key; did you mean 'seed'?\n")


def test_a_newer_manifest_is_refused(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = prepared / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 7}))
    assert main(["data", "verify", str(prepared)]) == 2
    assert "format_version 7, this gptdist reads 1" in capsys.readouterr().err


def test_preparing_needs_no_torch(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", make_texts(60))
    config = tmp_path / "c.yaml"
    config.write_text(
        f"name: t\noutput_dir: {tmp_path}/out\ntokenizer: {{kind: bpe, vocab_size: 300}}\n"
        f"sources: [{{name: a, kind: files, paths: ['{source}']}}]\nvalidation_fraction: 0.1\n"
    )
    code = (
        "import sys; from gptdist.cli.main import main; "
        f"assert main(['prep', 'run', {str(config)!r}]) == 0; "
        f"assert main(['data', 'verify', '{tmp_path}/out/a']) == 0; "
        "import gptdist.data.dataset; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_line_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    screen, log = Terminal(), io.StringIO()
    for stream in (screen, log):
        progress = Progress(stream)
        progress.begin("documents", total=4, done=1)
        progress.advance()
        progress.advance()
        progress.note("done")
        progress.end()
    assert "documents: 1 of 4 tasks" in screen.getvalue()
    assert "documents: 3 of 4 tasks, about " in screen.getvalue()
    assert log.getvalue() == "done\n"


def test_wrong_words_for_the_executors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(CONFIGS / "folder.yaml")
    with pytest.raises(SystemExit, match="2"):
        main(["prep", "run", config, "--workers", "0"])
    assert "'0' is not a number of at least 1" in capsys.readouterr().err
    assert main(["prep", "run", config, "--slurm-option=-p x"]) == 2
    assert "--slurm-option: belongs to --executor slurm, not local; remove it" in capsys.readouterr().err
    share = ["--batch", str(tmp_path / "none"), "--element", "0", "--of", "1"]
    assert main(["prep", "task", str(tmp_path), "documents", *share]) == 2
    assert f"{tmp_path}: no work of a running preparation" in capsys.readouterr().err


def test_slurm_has_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_texts(tmp_path / "my_documents", make_texts(20))
    assert source.exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["prep", "run", str(CONFIGS / "folder.yaml"), "--executor", "slurm"]) == 2
    assert "--executor slurm: 'sbatch' is not installed here" in capsys.readouterr().err


def test_a_job_array_script_quotes_every_word(tmp_path: Path) -> None:
    batch = Batch(tmp_path / "a $(touch hacked) b", "documents", (0, 1), 2)
    script = tmp_path / "job.sh"
    script.write_text(array_script(batch, tmp_path / "c;d"))
    words = subprocess.run(
        ["bash", "-c", f"exec() {{ printf '%s\\n' \"$@\"; }}; source {script}"],
        env={"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "7", "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert words[1:] == [
        *("-m", "gptdist.cli.main", "prep", "task", f"{tmp_path}/a $(touch hacked) b", "documents"),
        *("--batch", f"{tmp_path}/c;d/batch.json", "--element", "3", "--of", "7"),
    ]
    assert not (tmp_path / "hacked").exists()
