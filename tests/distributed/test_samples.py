"""Texts written while training: the same on every layout and after a resume, and no loss is changed by them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gptdist.config.validation import GenerationConfig
from gptdist.telemetry.ledger import read_json_lines
from gptdist.train.generate import pick
from tests.support.datasets import GPT2, run_tree
from tests.support.jobs import open_run, train_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

SAVE, END = 3, 6
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
ONE = TestedLayout(1, 1, 1)
OTHERS = [TestedLayout(2, 3, 1), TestedLayout(2, 1, 2, sequence_parallel=True), TestedLayout(4, 3, 2)]
PROMPTS = ["the model", "", "a token of the rank", "zz", "step"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


def _tree(folder: Path, name: str, layout: TestedLayout, every: int | None, **changes: Any) -> dict[str, Any]:
    generation = None if every is None else {"prompts": PROMPTS, "max_new_tokens": 9, "temperature": 0.9}
    return run_tree(
        folder,
        run_dir=str(folder / name),
        intervals={"save_steps": SAVE, "sample_steps": every},
        generation=generation,
        **{"model": GPT2 | DROPOUT, **layout.sections(), **changes},
    )


def _losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_json_lines(run / "metrics.jsonl") if record["kind"] == "train"]


def _texts(run: Path, attempt: int = 1) -> list[tuple[int, str, str, int]]:
    return [
        (one["step"], one["prompt"], one["text"], one["tokens"])
        for one in read_json_lines(run / "samples.jsonl")
        if one["attempt"] == attempt
    ]


@pytest.mark.parametrize("layout", [ONE, *OTHERS[:2]], ids=str)
def test_texts_disturb_nothing_and_come_again_after_a_resume(folder: Path, layout: TestedLayout) -> None:
    plain, often = f"plain-{layout}", f"often-{layout}"
    run_ranks(layout.world_size, train_run, _tree(folder, plain, layout, None))
    tree = _tree(folder, often, layout, 2)
    run_ranks(layout.world_size, train_run, tree)
    assert len(_losses(folder / plain)) == END
    assert _losses(folder / plain) == _losses(folder / often), "floats are compared bit for bit"
    whole = _texts(folder / often)
    assert [(step, prompt) for step, prompt, *_ in whole] == [(s, p) for s in (2, 4, 6) for p in PROMPTS]
    assert len({text for *_, text, _ in whole}) > len(PROMPTS), "texts change from step to step and prompt to prompt"

    shutil.rmtree(folder / often / "checkpoints" / f"step_{END:08d}")
    run_ranks(layout.world_size, train_run, tree)
    assert _texts(folder / often, attempt=2) == whole[len(PROMPTS) :]


@pytest.mark.parametrize("layout", [*OTHERS, TestedLayout(2, 1, 1, context_parallel_size=2)], ids=str)
def test_texts_do_not_depend_on_the_layout(folder: Path, layout: TestedLayout) -> None:
    found = []
    for one in (ONE, layout):
        name = f"layout-{layout}-{one}"
        tree = _tree(folder, name, one, 4, model=GPT2, data={"separate_documents": True})
        run_ranks(one.world_size, train_run, tree)
        found.append(_texts(folder / name))
    assert [step for step, *_ in found[0]] == [4] * len(PROMPTS) + [END] * len(PROMPTS), "on schedule, and at the end"
    assert found[0] == found[1]


def _drawn_at(tree: dict[str, Any], steps: list[int]) -> list[list[str]]:
    """Write texts with the initial weights, as if so many steps were done."""
    from gptdist.train.samples import log_samples

    run = open_run(tree)
    assert run.metrics is not None, "one rank is rank 0"
    for step in steps:
        run.state.step = step
        log_samples(run, is_last=True)
    texts = [one["text"] for one in read_json_lines(run.config.folder / "samples.jsonl")]
    return [texts[first : first + len(PROMPTS)] for first in range(0, len(texts), len(PROMPTS))]


def test_the_same_weights_draw_anew_at_another_step(folder: Path) -> None:
    first, again, other = run_ranks(1, _drawn_at, _tree(folder, "drawn", ONE, 1), [1, 1, 2])[0]
    assert first == again
    assert first != other


def test_tokens_are_drawn_by_their_probability() -> None:
    logits = torch.tensor([0.1, 0.6, 0.3]).log()
    generator = torch.Generator().manual_seed(3)

    def shares(**options: Any) -> list[float]:
        config = GenerationConfig(prompts=("a",), **options)
        drawn = [pick(logits, config, generator) for _ in range(4000)]
        return [drawn.count(token) / len(drawn) for token in range(3)]

    assert shares() == pytest.approx([0.1, 0.6, 0.3], abs=0.03)
    assert shares(temperature=0.5) == pytest.approx([0.01 / 0.46, 0.36 / 0.46, 0.09 / 0.46], abs=0.03)
    assert shares(top_k=2) == pytest.approx([0, 2 / 3, 1 / 3], abs=0.03)
    assert shares(top_p=0.9) == pytest.approx([0, 2 / 3, 1 / 3], abs=0.03)
    assert shares(top_p=0.5) == shares(temperature=0.0) == [0, 1, 0]
