"""A run that learns from a teacher is the same on every layout, resumes bit for bit, and leaves the teacher alone."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import LLAMA, MOE, run_tree
from tests.support.equality import Trained, assert_same_training, train_on
from tests.support.jobs import open_run, step_until, train_steps
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks

TEACHER = LLAMA | {
    "num_layers": 3,
    "hidden_size": 48,
    "seq_length": 64,
    "init": "mup",
    "mup_base_hidden_size": 24,
    "init_std": 0.4,
}
"""Of another family, depth, width and length than the student, untied, with a multiplier of its logits, and sure of
what it says."""

HIDDEN = [
    {"student_layer": 0, "teacher_layer": 1, "weight": 0.5},
    {"student_layer": 1, "teacher_layer": 2, "kind": "cosine"},
]
SECTION = {"temperature": 2.0, "ce_weight": 0.4, "kl_weight": 0.6, "hidden": HIDDEN}
LAYOUTS = [
    TestedLayout(2, 1, 2),
    TestedLayout(2, 3, 2, sequence_parallel=True),
    TestedLayout(2, 3, 1),
    TestedLayout(2, 2, 1, context_parallel_size=2),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained teacher."""
    folder = tmp_path_factory.mktemp("distillation")
    run_ranks(1, train_steps, run_tree(folder, run_dir=str(folder / "teacher"), model=TEACHER), 3, 3)
    return folder


def student(folder: Path, name: str, section: dict[str, Any], layout: TestedLayout = ONE_RANK, **changes: Any):
    """Return the config of a run on masked data that learns from the fixture's teacher."""
    data = {"separate_documents": True, "loss_mask": {"ignore_document_starts": True}}
    distillation = {"teacher": str(folder / "teacher"), **section}
    return run_tree(
        folder,
        **{"run_dir": str(folder / name), "data": data, "distillation": distillation} | layout.sections() | changes,
    )


@pytest.fixture(scope="module")
def alone(folder: Path) -> Trained:
    """The student's training on one rank."""
    return train_on(ONE_RANK, student(folder, "alone", SECTION))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout_learns_the_same(folder: Path, alone: Trained, layout: TestedLayout) -> None:
    """The head's logits are split over tensor-parallel ranks, the teacher's too, and so are hidden states."""
    assert_same_training(train_on(layout, student(folder, f"on-{layout}", SECTION, layout)), alone)


def learn(tree: dict[str, Any], until: int) -> dict[str, Any]:
    """Train to ``until``; return losses, what the last is made of, and whether the teacher kept every bit."""
    import torch

    run = open_run(tree)
    teacher = run.distillation._source._teacher.model
    before = [parameter.clone() for parameter in teacher.parameters()]
    steps = step_until(run, until)
    return {
        "losses": [loss for _, loss, _ in steps],
        "parts": run.distillation.numbers(),
        "is_frozen": all(map(torch.equal, before, teacher.parameters())),
        "has_gradients": any(parameter.grad is not None for parameter in teacher.parameters()),
    }


def test_the_loss_is_made_of_its_parts_and_the_teacher_is_frozen(folder: Path) -> None:
    found = run_ranks(2, learn, student(folder, "parts", SECTION, TestedLayout(2, 1, 2)), 3)[0]
    parts = found["parts"]
    whole = 0.4 * parts["ce"] + 0.6 * parts["kl"] + parts["hidden"]
    assert found["losses"][-1] == pytest.approx(whole, rel=1e-6), "fp32"
    assert min(parts.values()) > 0.1, "every part is of some weight"
    assert (found["is_frozen"], found["has_gradients"]) == (True, False)


def test_a_student_that_begins_as_its_teacher_has_nothing_to_learn(folder: Path) -> None:
    """A tied one with experts, and one with a multiplier of its logits, by either divergence; in fp32."""
    model = MOE | {"tie_embeddings": True, "moe": MOE["moe"] | {"aux_loss": 0.0, "router_z_loss": 0.0}}
    run_ranks(1, train_steps, run_tree(folder, run_dir=str(folder / "experts"), model=model), 2, 2)
    for loss, teacher, section in (("forward", "experts", model), ("reverse", "teacher", TEACHER)):
        tree = student(folder, f"same-{loss}", {"teacher": str(folder / teacher), "loss": loss}, model=section)
        tree["training"] = tree["training"] | {"init_from": str(folder / teacher)}
        tree["data"] = tree["data"] | {"separate_documents": False, "loss_mask": {}}
        first = run_ranks(1, train_steps, tree, 1)[0][0]
        assert abs(first[1]) < 1e-6, "fp32"
        assert first[2] < 1e-5, "fp32"


def test_a_resume_is_bit_equal_and_needs_the_same_teacher(folder: Path) -> None:
    section = SECTION | {"until_step": 3}
    whole = run_ranks(1, train_steps, student(folder, "whole", section), 4, 2)[0]
    begun = run_ranks(1, train_steps, student(folder, "torn", section), 2, 2)[0]
    resumed = run_ranks(1, train_steps, student(folder, "torn", section), 4, 4)[0]
    assert begun + resumed == whole, "floats are compared bit for bit"
    behind = run_ranks(1, learn, student(folder, "behind", section), 4)[0]
    assert behind["parts"] == {}, "behind until_step nothing is learnt from the teacher"

    run_ranks(1, train_steps, run_tree(folder, run_dir=str(folder / "other"), model=TEACHER, seed=5), 1, 1)
    for changed, message in (
        (section | {"teacher": str(folder / "other")}, r"learnt from the teacher \w{12}, distillation names \w{12}"),
        (section | {"kl_weight": 0.7}, r"distillation.kl_weight: 0.6 → 0.7; a run keeps what it learns from"),
    ):
        with pytest.raises(AssertionError, match=message):
            run_ranks(1, train_steps, student(folder, "torn", changed), 5)
    plain = student(folder, "torn", section)
    del plain["distillation"]
    with pytest.raises(AssertionError, match=r"distillation: .*→ None; a run keeps what it learns from"):
        run_ranks(1, train_steps, plain, 5)
    assert math.isfinite(run_ranks(1, train_steps, student(folder, "torn", section), 5)[0][0][1])


def cache_for(tree: dict[str, Any], output: str, method: str, kept: int) -> None:
    """Write the teacher's logits on the samples of the run ``tree``."""
    from gptdist.checkpoint.teacher import check_teacher
    from gptdist.compress.cache_logits import CacheOptions, CacheRun, write_cache
    from gptdist.config.run import RunConfig
    from gptdist.data.sources import check_data

    config = RunConfig.from_tree(tree)
    tokenizer, data = check_data(config)
    run = CacheRun(config, tokenizer, data, check_teacher(config, tokenizer))
    write_cache(run, Path(output), CacheOptions(method, kept))


def test_kept_logits_teach_the_same_on_every_layout(folder: Path) -> None:
    """Of all tokens but one, with the rest, they are the whole teacher, whose run on one rank is the measure."""
    section = {"temperature": 2.0, "ce_weight": 0.4, "kl_weight": 0.6}
    online = student(folder, "online", section)
    expected = run_ranks(1, train_steps, online, 3)[0]
    run_ranks(1, cache_for, online, str(folder / "kept"), "top_k", 256)
    run_ranks(1, cache_for, online, str(folder / "drawn"), "sampled", 12)
    drawn = []
    for layout in (LAYOUTS[0], LAYOUTS[3], TestedLayout(2, 1, 1)):
        for name in ("kept", "drawn"):
            cached = section | {"teacher": None, "cache": str(folder / name)}
            seen = run_ranks(2, train_steps, student(folder, f"{name}-{layout}", cached, layout), 3)[0]
            if name == "drawn":
                drawn.append(seen)
                continue
            for (step, loss, norm), (_, expected_loss, expected_norm) in zip(seen, expected, strict=True):
                assert loss == pytest.approx(expected_loss, abs=1e-5), f"step {step}: probabilities are kept in fp32"
                assert norm == pytest.approx(expected_norm, rel=1e-4), f"step {step}"
    for seen in drawn[1:]:
        assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in drawn[0]], abs=1e-5)
    assert drawn[0][0][1] == pytest.approx(expected[0][1], rel=0.1), "on average it is the teacher's"


def test_another_vocabulary_is_matched_on_every_layout(folder: Path) -> None:
    from tests.unit.checkpoint.test_teacher import other_tokenizer, write_teacher

    theirs = other_tokenizer()
    theirs.save(folder / "theirs")
    write_teacher(folder / "foreign", theirs.fingerprint, vocab_size=258)
    section = {
        "teacher": str(folder / "foreign"),
        "teacher_tokenizer": str(folder / "theirs"),
        "map_vocabulary": True,
        "ce_weight": 0.5,
    }
    alone = run_ranks(1, learn, student(folder, "mapped", section), 2)[0]
    split = run_ranks(2, learn, student(folder, "mapped-2", section, TestedLayout(2, 3, 2, sequence_parallel=True)), 2)[
        0
    ]
    assert split["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert split["parts"] == pytest.approx(alone["parts"], abs=1e-5)
    assert alone["parts"]["kl"] > 0.1


def test_half_precision(folder: Path, alone: Trained) -> None:
    tree = student(folder, "bf16", SECTION, TestedLayout(2, 1, 2))
    tree["training"] = tree["training"] | {"precision": "bf16"}
    seen = run_ranks(2, train_steps, tree, 2)[0]
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in alone.steps[:2]], rel=0.02)
