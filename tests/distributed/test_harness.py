"""Tasks of lm-evaluation-harness give the same numbers with our model as with its own of the exported folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptdist.errors import ConfigError
from tests.support.datasets import make_documents, run_tree
from tests.support.jobs import train_run
from tests.support.ranks import repository, run_ranks

SCORE_TOLERANCE = 1e-4
"""Relative, of fp32 likelihoods by two implementations."""

TASKS = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}} ",
        "doc_to_choice": ["the model", "a rank", "zzz"],
        "doc_to_target": "{{number}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "whole": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness")
    tree = run_tree(folder, training={"train_steps": 30}, intervals={"log_steps": 30}, optimizer={"lr": 1e-2})
    run_ranks(1, train_run, tree)
    tasks = folder / "tasks"
    tasks.mkdir()
    texts = make_documents(8, 3)  # some are longer than the model's 32 positions, some are not
    rows = [{"text": text[: 10 + 13 * i], "number": i % 3, "answer": " th"} for i, text in enumerate(texts)]
    (tasks / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tasks / "rows.jsonl")}}}
        (tasks / f"{name}.yaml").write_text(json.dumps({"task": name, "test_split": "test", **data, **task}))
    (tasks / "hub.yaml").write_text(
        json.dumps({"task": "hub", "test_split": "test", "dataset_path": "no/such", **TASKS["whole"]})
    )
    return folder


def _evaluate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gptdist.cli.main", "evaluate", str(folder / "run"), *words]
    environment = {
        "PYTHONPATH": str(repository()),
        "HOME": str(folder),
        "HF_HOME": str(folder / "hf"),
        "PATH": "/usr/bin:/bin",
    }
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_scores_equal_those_of_the_exported_model(folder: Path) -> None:
    done = _evaluate(
        folder, "--tasks", ",".join(TASKS), "--include", str(folder / "tasks"), "--batch-size", "3", "--json"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["step"] == 30
    ours = {(score["task"], score["metric"]): score["value"] for score in found["scores"]}
    theirs, texts = run_ranks(1, _by_transformers, str(folder))[0]
    assert ours.keys() == theirs.keys() >= {("choice", "acc"), ("whole", "bits_per_byte"), ("written", "exact_match")}
    assert ours == pytest.approx(theirs, rel=SCORE_TOLERANCE)
    assert texts[0] == texts[1], "what was written, and log-likelihoods to a few digits"
    assert len(set(texts[0])) > 3


def _by_transformers(folder: str) -> tuple[dict[tuple[str, str], float], list[list[Any]]]:
    """Return the harness's scores of the exported model, and each model's own answers."""
    from gptdist.checkpoint.find import resolve_checkpoint
    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.compress.harness import forbid_network, run_tasks

    forbid_network()
    os.environ["HF_HOME"] = folder + "/hf"
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from gptdist.compress.generate import open_text_model
    from gptdist.compress.harness_model import HarnessModel
    from gptdist.compress.trained_on import trained_tokenizer
    from gptdist.train.inference import load_model, single_process_mesh

    reader = CheckpointReader(resolve_checkpoint(Path(folder) / "run"))
    exported = open_text_model(Path(folder) / "run")
    theirs = HFLM(pretrained=exported.model, tokenizer=exported.tokenizer, batch_size=3, max_length=32, device="cpu")
    scores = run_tasks(theirs, list(TASKS), include=Path(folder) / "tasks", limit=None, num_fewshot=None)
    mesh = single_process_mesh()
    ours = HarnessModel(load_model(reader, mesh), mesh, trained_tokenizer(reader.manifest), 32, 3)

    with pytest.raises(ConfigError, match="a task asks for do_sample; texts are written without sampling"):
        ours.generate_until([Instance("generate_until", {}, ("a", {"do_sample": True}), 0)])
    stops = [{"until": until, "max_gen_toks": 9} for until in ([], ["", "zz"])]
    written = ours.generate_until([Instance("generate_until", {}, ("the ", settings), 0) for settings in stops])
    assert written[0] == written[1], "an empty stop text stops something"
    texts = make_documents(6, 5)
    pairs = [
        (text[:cut], " the model of" * times) for text in texts for cut, times in ((0, 1), (9, 1), (40, 1), (12, 2))
    ]
    settings = {"until": ["m", "\n"], "max_gen_toks": 9, "do_sample": False}
    answers: list[list[Any]] = []
    for model in (ours, theirs):
        likely = model.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs])
        rolling = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts])
        written = model.generate_until([Instance("generate_until", {}, (text, dict(settings)), 0) for text in texts])
        answers.append(
            [*((round(score, 2), greedy) for score, greedy in likely), *(round(s, 1) for s in rolling), *written]
        )
    return {(score.task, score.metric): score.value for score in scores}, answers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--tasks", "nothing"],
            "--tasks: 'nothing' is no task of lm-evaluation-harness, nor of --include; mend the name",
        ),
        (["--tasks", "hub"], "no network is used here, have the task's data on this machine"),
        (["--tasks", ",", "--limit", "0"], "--limit: must be at least 1, got 0"),
    ],
)
def test_tasks_that_cannot_be_run_are_refused_in_a_line(folder: Path, words: list[str], message: str) -> None:
    done = _evaluate(folder, *words, "--include", str(folder / "tasks"))
    assert done.returncode == 2, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("gptdist evaluate: error: ")]
    assert any(message in line for line in lines), done.stderr[-2000:]
    assert "Traceback" not in done.stderr
