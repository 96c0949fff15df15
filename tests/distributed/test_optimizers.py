"""Every optimizer on every layout moves the weights as on one rank, and goes on from its checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.find import newest_whole
from gptdist.checkpoint.read import CheckpointReader
from tests.support.datasets import GPT2, LLAMA, MODERN, MOE, run_tree
from tests.support.jobs import open_run, step_until, train_steps
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks
from tests.support.step_folders import rewrite_manifest

KINDS: dict[str, dict[str, Any]] = {
    "lion": {"kind": "lion", "lr": 1e-3},
    "adamw16": {"moment_precision": "bf16"},
    "muon": {"kind": "muon"},
    "adafactor": {"kind": "adafactor"},
}


def _states(kind: str, name: str, *, is_matrix: bool) -> set[str]:
    if kind == "muon" and ".linear_" in name and name.endswith("weight"):
        return {"weight", "momentum_buffer"}
    if kind == "adafactor":
        return {"weight"} if is_matrix else {"weight", "exp_avg_sq"}
    return {"weight", "exp_avg"} if kind == "lion" else {"weight", "exp_avg", "exp_avg_sq"}


STEPS = 3

WEIGHT_TOLERANCE = 1e-3
"""Of the norm of a tensor's movement; 7e-5 was seen, where a moment was rounded to the next number of 16 bits."""

STEP_NORM = 0.2 * 3e-3
"""Root mean square of an update by Muon at the rate of these tests."""

LOSS_TOLERANCE = 5e-6
"""Losses of the next steps, sums in another order."""

BF16_TOLERANCE = 0.01
"""Losses of the first steps, weights rounded to 8 bits."""

NORM_TOLERANCE = 1e-4
"""Of gradient norms by Adafactor, whose steps are as large where a gradient is noise; 4e-6 was seen."""

MEANS_TOLERANCE = 1e-5
"""Of Adafactor's mean squares after ``MEANS_STEPS``; 8e-7 was seen."""

MEANS_STEPS = 2
"""Before the third step, in which it shows that Adafactor's first one was as large where a gradient is noise: squares
of small gradients then differ by a thousandth, more or less by the processor."""

LAYOUTS = [
    TestedLayout(2, 0, 1),
    TestedLayout(2, 1, 1),
    TestedLayout(2, 3, 1),
    TestedLayout(2, 1, 2),
    TestedLayout(4, 2, 2),
    TestedLayout(4, 3, 2),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("optimizers")


def _tree(folder: Path, name: str, kind: str, layout: TestedLayout, **changes: Any) -> dict[str, Any]:
    run_dir = str(folder / f"{name}-{kind}-{layout}")
    return run_tree(folder, model=LLAMA, optimizer=KINDS[kind], run_dir=run_dir, **layout.sections(), **changes)


def _reader(tree: dict[str, Any]) -> CheckpointReader:
    found = newest_whole(Path(tree["run_dir"]) / "checkpoints")[0]
    assert found is not None
    return CheckpointReader(found)


@pytest.fixture(scope="module")
def one_rank(folder: Path):
    seen = {}
    for kind in KINDS:
        tree = _tree(folder, "equal", kind, ONE_RANK)
        first = run_ranks(1, train_steps, tree, 1, 1)[0]
        start = _reader(tree)
        rest = run_ranks(1, train_steps, tree, STEPS, STEPS)[0]
        seen[kind] = first + rest, start, _reader(tree)
    return seen


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_move_as_on_one_rank(folder: Path, one_rank, kind: str, layout: TestedLayout) -> None:
    expected, start, end = one_rank[kind]
    tree = _tree(folder, "equal", kind, layout)
    seen = run_ranks(layout.world_size, train_steps, tree, STEPS, STEPS)[0]
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in expected], abs=LOSS_TOLERANCE)
    reader = _reader(tree)
    for name in end.tensor_names:
        assert set(reader.entry(name).states) == _states(kind, name, is_matrix=len(reader.entry(name).shape) > 1)
        moved = (end.weight(name) - start.weight(name)).norm()
        assert moved > 0, f"{name} does not move"
        assert (reader.weight(name) - end.weight(name)).norm() <= WEIGHT_TOLERANCE * moved, name


@pytest.mark.parametrize("layout", [TestedLayout(2, 1, 1), TestedLayout(4, 3, 2)], ids=str)
def test_muon_takes_experts_apart_on_every_layout(folder: Path, layout: TestedLayout) -> None:
    readers = []
    for one in (ONE_RANK, layout):
        tree = _tree(folder, f"experts-{layout}", "muon", one) | {"model": MOE}
        run_ranks(one.world_size, train_steps, tree, 2, 2)
        readers.append(_reader(tree))
    name = "decoder.layers.1.mlp.experts.linear_fc1.weight"
    assert readers[0].entry(name).states == ("weight", "momentum_buffer")
    expected, seen = (reader.weight(name) for reader in readers)
    assert (seen - expected).norm() < WEIGHT_TOLERANCE * STEP_NORM * expected.numel() ** 0.5


@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[1], LAYOUTS[5]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_same_layout_resumes_bit_for_bit(folder: Path, kind: str, layout: TestedLayout) -> None:
    tree = _tree(folder, "same", kind, layout)
    whole = run_ranks(layout.world_size, train_steps, tree, 5, 3)[0]
    assert run_ranks(layout.world_size, train_steps, tree, 5)[0] == whole[3:]


@pytest.mark.parametrize(("before", "after"), [(LAYOUTS[4], LAYOUTS[0]), (LAYOUTS[2], LAYOUTS[3])], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_other_layout_goes_on(folder: Path, kind: str, before: TestedLayout, after: TestedLayout) -> None:
    trees = [_tree(folder, f"other-{before}", kind, layout) for layout in (before, after)]
    trees[1]["run_dir"] = trees[0]["run_dir"]
    whole = run_ranks(before.world_size, train_steps, trees[0], 5, 3)[0]
    seen = run_ranks(after.world_size, train_steps, trees[1], 5)[0]
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in whole[3:]], abs=LOSS_TOLERANCE)


@pytest.mark.parametrize("layout", LAYOUTS[1:3], ids=str)
@pytest.mark.parametrize("kind", ["muon", "adafactor"])
def test_it_goes_on_with_bf16_weights(folder: Path, kind: str, layout: TestedLayout) -> None:
    bf16 = {"training": {"precision": "bf16"}}
    trees = [_tree(folder, f"bf16-{layout}", kind, one, **bf16) for one in (TestedLayout(1, 1, 1), layout)]
    expected = run_ranks(1, train_steps, trees[0], STEPS)[0]
    seen = run_ranks(layout.world_size, train_steps, trees[1], STEPS, STEPS - 1)[0]
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in expected], abs=BF16_TOLERANCE)
    assert run_ranks(layout.world_size, train_steps, trees[1], STEPS)[0] == seen[-1:]


@pytest.mark.parametrize("layout", LAYOUTS[1:3], ids=str)
@pytest.mark.parametrize("kind", ["lion", "adafactor"])
def test_it_is_offloaded(folder: Path, one_rank, kind: str, layout: TestedLayout) -> None:
    tree = _tree(folder, "offload", kind, layout, memory={"offload_optimizer": "cpu"})
    expected = one_rank[kind][0]
    seen = run_ranks(layout.world_size, train_steps, tree, STEPS, STEPS - 1)[0]
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in expected], abs=LOSS_TOLERANCE)
    assert run_ranks(layout.world_size, train_steps, tree, STEPS)[0] == seen[-1:]
    tree["memory"] = {}
    resumed = run_ranks(layout.world_size, train_steps, tree, STEPS)[0]
    assert [loss for _, loss, _ in resumed] == pytest.approx([seen[-1][1]], abs=LOSS_TOLERANCE)


OTHER_AXES = [
    (TestedLayout(4, 1, 2, pipeline_parallel_size=2), GPT2),
    (TestedLayout(4, 2, 1, pipeline_parallel_size=2, context_parallel_size=2), GPT2),
    (TestedLayout(2, 3, 2, sequence_parallel=True), MODERN),
    (TestedLayout(4, 1, 2), MOE),
    (TestedLayout(4, 0, 2, expert_parallel_size=2), MOE),
    (TestedLayout(4, 2, 1, expert_parallel_size=2), MOE),
]


def _train_and_look(tree: dict[str, Any]) -> tuple[list[tuple[int, float, float]], dict[tuple[str, str], Any]]:
    """Return some steps, and the means of rows and columns after the first of them, of tensors by name."""
    run = open_run(tree)
    seen = step_until(run, MEANS_STEPS)
    states = run.fragments.whole_states()
    means = {(one.local.logical.name, one.state): one.values.numpy().copy() for one in states}
    seen += step_until(run, STEPS)
    run.saver.finish()
    return seen, means


@pytest.mark.parametrize(("layout", "model"), OTHER_AXES, ids=[str(layout) for layout, _ in OTHER_AXES])
def test_adafactors_means_are_of_whole_matrices_on_every_axis(folder: Path, layout: TestedLayout, model: dict) -> None:
    """They say so of every gradient, but for a key's bias, which changes no loss: its gradient is noise."""
    trees = [_tree(folder, f"axes-{layout}-{one}", "adafactor", one) | {"model": model} for one in (ONE_RANK, layout)]
    ((expected, means),) = run_ranks(1, _train_and_look, trees[0])
    for seen, part in run_ranks(layout.world_size, _train_and_look, trees[1]):
        assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in expected], abs=LOSS_TOLERANCE)
        assert [norm for *_, norm in seen] == pytest.approx([norm for *_, norm in expected], rel=NORM_TOLERANCE)
        assert part, "every rank keeps some"
        for key, values in part.items():
            assert values == pytest.approx(means[key], rel=MEANS_TOLERANCE, abs=0), key


def test_a_checkpoint_without_adafactors_means_is_refused_by_name(folder: Path) -> None:
    tree = _tree(folder, "lacking", "adafactor", LAYOUTS[3])
    run_ranks(2, train_steps, tree, 1, 1)
    step = _reader(tree).folder
    manifest = json.loads((step / "manifest.json").read_text())
    kept = manifest["whole_states"]
    name = "decoder.layers.1.mlp.linear_fc2.weight"
    assert [one["state"] for one in kept if one["tensor"] == name] == ["exp_avg_sq_row", "exp_avg_sq_col"]
    assert len({(one["tensor"], one["state"]) for one in kept}) == len(kept), "each is written once"
    assert {one["file"] for one in kept} == {"rank_00000.safetensors"}
    for changed, said in (
        ([one for one in kept if one["tensor"] != name], rf"holds no exp_avg_sq_row of '{name}'; it is incomplete"),
        (
            [one | {"shape": [1, 7]} if one["tensor"] == name else one for one in kept],
            rf"exp_avg_sq_row of '{name}' is \[1, 7\], the model's is \[1, 32\]",
        ),
    ):
        rewrite_manifest(step, manifest | {"whole_states": changed})
        with pytest.raises(AssertionError, match=said):
            run_ranks(2, train_steps, tree, 2)
    rewrite_manifest(step, manifest)
    assert run_ranks(2, train_steps, tree, 2)[0][0][0] == 2


def _differences(tree: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return what differs from the newest checkpoint, and once more after a mean has changed."""
    from gptdist.checkpoint.difference import differences

    run, folder = open_run(tree), _reader(tree).folder
    found = []
    for added in (0.0, 0.5):
        run.fragments.whole_states()[1].values[0, 0, 0] += added
        found.append(differences(run.fragments, before=folder, saved=folder))
    return [
        [one for one in each if one["values"]] + [one for one in each if one["state"] != "weight"] for each in found
    ]


def test_differences_tell_of_adafactors_means(folder: Path) -> None:
    tree = _tree(folder, "difference", "adafactor", LAYOUTS[3])
    run_ranks(2, train_steps, tree, 1, 1)
    same, other = run_ranks(2, _differences, tree)[0]
    assert len(same) == 2 * 10 + 5, "rows and columns of each matrix, and of vectors each value"
    assert not any(one["values"] for one in same)
    assert (other[0]["state"], other[0]["tensor"], other[0]["values"], other[0]["largest"]) == (
        "exp_avg_sq_col",
        "embedding.word_embeddings.weight",
        1,
        pytest.approx(0.5),
    )


def _resume_and_look(tree: dict[str, Any]) -> tuple[list[str], list[float], int]:
    """Return what a resume warns of, the largest value of each moment, and the optimizer step."""
    import logging

    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("gptdist").addHandler(handler)
    run = open_run(tree)
    largest = [
        float(values.abs().max())
        for fragment in run.fragments.all()
        for state, values in fragment.states.items()
        if state != "weight"
    ]
    largest += [float(one.values.max()) for one in run.fragments.whole_states()]
    return said, largest, run.fragments.optimizer_step()


def test_another_kind_begins_its_moments_at_zero_and_says_so(folder: Path) -> None:
    tree = _tree(folder, "changed", "adamw16", LAYOUTS[1])
    run_ranks(2, train_steps, tree, 2, 2)
    said, largest, step = run_ranks(2, _resume_and_look, tree)[0]
    assert (said, step) == ([], 2)
    assert max(largest) > 0
    wide = run_ranks(2, _resume_and_look, tree | {"optimizer": {"lr": 3e-3}})[0]
    assert wide == ([], largest, 2), "the format of moments may change"
    for kind in ("lion", "adafactor"):
        said, largest, step = run_ranks(2, _resume_and_look, tree | {"optimizer": KINDS[kind]})[0]
        assert said == [f"optimizer.kind: adamw → {kind}; its moments begin at zero, expect a bend in the loss"]
        assert (max(largest), step) == (0, 0)
