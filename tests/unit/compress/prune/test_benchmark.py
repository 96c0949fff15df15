"""The runs that the benchmark compares: the same tokens, and nothing else in common that is not meant."""

from pathlib import Path
from typing import Any

from benchmarks.compress_structure import KINDS, run_tree
from gptdist.config.run import RunConfig
from tests.support import datasets


def trees(folder: Path, **changes: Any) -> dict[str, Any]:
    """The config of each kind, of a parent with settings that a short run cannot have."""
    training = {"init_from": str(folder / "cut"), "early_stopping": {"patience_evaluations": 2}}
    schedule = {"warmup_steps": 5, "decay_steps": 900}
    cut = RunConfig.from_tree(datasets.run_tree(folder, training=training, schedule=schedule)).tree() | changes
    teacher, output = folder / "run", folder / "out"
    return {kind: run_tree(cut, kind, teacher=teacher, output=output, steps=36, lr=1e-4) for kind in KINDS}


def test_runs_differ_in_what_they_begin_with(tmp_path: Path) -> None:
    found = {kind: RunConfig.from_tree(tree) for kind, tree in trees(tmp_path).items()}
    assert all(config.problems() == [] for config in found.values())
    assert found["distilled"].training == found["trained on"].training
    on, scratch = found["trained on"], found["from scratch"]
    assert (on.training.init_from, scratch.training.init_from) == (tmp_path / "cut", None)
    assert (on.folder, scratch.folder) == (tmp_path / "out/trained-on", tmp_path / "out/from-scratch")
    assert (on.seed, on.data, on.batch, on.schedule) == (scratch.seed, scratch.data, scratch.batch, scratch.schedule)
    assert (on.schedule.warmup_steps, on.schedule.decay_steps) == (1, None)
    assert on.train_tokens == scratch.train_tokens == 36 * 8 * 32
    assert on.training.early_stopping is None
    assert on.training.train_steps % on.intervals.eval_steps == 0


def test_no_run_but_the_distilled_has_a_teacher(tmp_path: Path) -> None:
    found = {
        kind: RunConfig.from_tree(tree)
        for kind, tree in trees(tmp_path, distillation={"teacher": "another", "temperature": 2.0}).items()
    }
    teacher = found["distilled"].distillation
    assert teacher is not None
    assert (teacher.teacher, teacher.temperature, teacher.kl_weight) == (tmp_path / "run", 1.0, 1.0)
    assert found["trained on"].distillation is found["from scratch"].distillation is None
