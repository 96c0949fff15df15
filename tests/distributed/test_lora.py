"""Adapters: the same training on every layout, the weights beside them frozen, and merged wherever a model is read."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gptdist.checkpoint.find import newest_whole
from gptdist.checkpoint.read import CheckpointReader
from tests.support.datasets import GPT2, LLAMA, run_tree
from tests.support.equality import GRADIENT_TOLERANCE, LOSS_TOLERANCE
from tests.support.jobs import open_run, step_until, train_steps
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks

LORA = {"rank": 3, "alpha": 6.0}
MODELS = {"llama": LLAMA, "gpt2": GPT2}
STEPS = 3
LOGIT_TOLERANCE = 2e-5
"""fp32: W x + B A x and (W + B A) x are rounded differently; 2e-6 was the largest difference seen."""

LAYOUTS = [
    TestedLayout(2, 0, 1),
    TestedLayout(2, 2, 1),
    TestedLayout(2, 3, 1),
    TestedLayout(2, 0, 2),
    TestedLayout(2, 1, 2, sequence_parallel=True),
    TestedLayout(2, 0, 1, context_parallel_size=2),
    TestedLayout(4, 1, 2),
    TestedLayout(4, 3, 2, sequence_parallel=True),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of models that have learnt a little, so that no weight is as it was drawn."""
    folder = tmp_path_factory.mktemp("lora")
    for name, model in MODELS.items():
        run_ranks(1, train_steps, run_tree(folder, run_dir=str(folder / name), model=model), 2, 2)
    return folder


def lora_tree(folder: Path, name: str, layout: TestedLayout = ONE_RANK, model: str = "llama", **changes: Any):
    sections = {
        "model": MODELS[model],
        "lora": LORA,
        "training": {"init_from": str(folder / model)},
        # Adam divides by the root of a gradient that is 0 but for rounding; this keeps such values small.
        "optimizer": {"lr": 1e-2, "eps": 1e-3},
    }
    return run_tree(folder, run_dir=str(folder / name), **(layout.sections() | sections | changes))


def saved(tree: dict[str, Any]) -> CheckpointReader:
    return CheckpointReader(newest_whole(Path(tree["run_dir"]) / "checkpoints")[0], merges_adapters=False)


@pytest.fixture(scope="module")
def references(folder: Path) -> dict[str, tuple[list[tuple[int, float, float]], CheckpointReader]]:
    """Steps on one rank and the checkpoint after the second, in which both factors have had a gradient."""
    found = {}
    for model in MODELS:
        tree = lora_tree(folder, f"reference-{model}", model=model)
        found[model] = run_ranks(1, train_steps, tree, STEPS, 2)[0], saved(tree)
    return found


@pytest.mark.parametrize(
    ("layout", "model"),
    [*((layout, "llama") for layout in LAYOUTS), (LAYOUTS[3], "gpt2"), (LAYOUTS[4], "gpt2")],
    ids=str,
)
def test_every_layout_gives_the_same_losses_and_gradients(
    folder: Path, references, layout: TestedLayout, model: str
) -> None:
    expected_steps, expected = references[model]
    tree = lora_tree(folder, f"{layout}-{model}", layout, model)
    seen = run_ranks(layout.world_size, train_steps, tree, STEPS, 2)
    assert all(rank == seen[0] for rank in seen), "ranks disagree on loss or norm"
    for (step, loss, norm), (_, expected_loss, expected_norm) in zip(seen[0], expected_steps, strict=True):
        assert loss == pytest.approx(expected_loss, abs=LOSS_TOLERANCE), f"loss of step {step}"
        assert norm == pytest.approx(expected_norm, rel=GRADIENT_TOLERANCE), f"gradient norm of step {step}"
    found, base = saved(tree), CheckpointReader(newest_whole(folder / model / "checkpoints")[0])
    assert sorted(found.tensor_names) == sorted(expected.tensor_names)
    for name in expected.tensor_names:
        entry = expected.entry(name)
        assert found.entry(name).states == entry.states
        if entry.states == ("weight",):
            assert torch.equal(found.weight(name), base.weight(name)), f"{name} is frozen"
            continue
        span = {"outer": (0, entry.outer), "along": (0, entry.length)}
        ours, theirs = (one.block(name, "exp_avg", **span) for one in (found, expected))
        assert theirs.abs().max() > 0, f"{name} has no gradient"
        assert (ours - theirs).abs().max() <= GRADIENT_TOLERANCE * theirs.abs().max(), f"gradient of {name}"


def look_inside(tree: dict[str, Any]) -> dict[str, Any]:
    """Return what a run holds after a step, and its logits before it and after three."""
    run = open_run(tree)
    tokens = torch.from_numpy(run.data.rows(0, 1)[0][None, :-1])
    places = torch.arange(tokens.shape[1])[None]

    def logits() -> torch.Tensor:
        run.engine.module.eval()
        with torch.no_grad():
            found = run.engine.module(tokens, places, None)
        run.engine.module.train()
        return found

    first = logits()
    step_until(run, 1)
    adapters = sum(one.numel for one in run.parameters if one.parameter.requires_grad)
    moments = [value for state in run.fragments.torch_optimizer.state.values() for value in state.values()]
    facts = {
        "adapters": adapters,
        "weights": sum(one.numel for one in run.parameters) - adapters,
        "moments": sum(value.numel() for value in moments if value.dim()),
        "gradients": sum(p.grad.numel() for p in run.engine.module.parameters() if p.grad is not None),
    }
    step_until(run, STEPS, STEPS)
    run.saver.finish()
    return {"tokens": tokens, "first": first, "last": logits(), **facts}


def merged_logits(path: Path, tokens: torch.Tensor) -> torch.Tensor:
    from gptdist.checkpoint.find import resolve_checkpoint
    from gptdist.train.inference import load_model, single_process_mesh

    model = load_model(CheckpointReader(resolve_checkpoint(path)), single_process_mesh())
    with torch.no_grad():
        return model(tokens, torch.arange(tokens.shape[1])[None], None)


def exported_logits(path: Path, output: Path, tokens: torch.Tensor) -> torch.Tensor:
    from gptdist.compress.export import export_checkpoint
    from gptdist.compress.hf_model import load_huggingface_model

    export_checkpoint(path, output)
    with torch.no_grad():
        return load_huggingface_model(output)(tokens).logits


@pytest.mark.parametrize("model", list(MODELS))
def test_adapters_begin_as_nothing_cost_little_and_merge_into_the_weights(folder: Path, model: str) -> None:
    tree = lora_tree(folder, f"inside-{model}", model=model)
    tree["parallel"]["zero_stage"] = 1
    for source in tree["data"]["sources"]:
        del source["weight"]  # as the config of a fine-tuned run has none
    seen = run_ranks(1, look_inside, tree)[0]
    base = run_ranks(1, merged_logits, folder / model, seen["tokens"])[0]
    assert torch.equal(seen["first"], base), "B is 0, so nothing is added"
    assert seen["moments"] == 2 * seen["adapters"], "frozen weights have no optimizer state"
    assert seen["gradients"] <= seen["adapters"], "frozen weights have no gradient"
    assert seen["weights"] > 4 * seen["adapters"]
    merged = run_ranks(1, merged_logits, folder / f"inside-{model}", seen["tokens"])[0]
    assert (merged - seen["last"]).abs().max() <= LOGIT_TOLERANCE
    assert (merged - base).abs().max() > 1000 * LOGIT_TOLERANCE, "the adapters have learnt something"
    exported = run_ranks(1, exported_logits, folder / f"inside-{model}", folder / f"hf-{model}", seen["tokens"])[0]
    assert (exported - seen["last"]).abs().max() <= LOGIT_TOLERANCE


def test_the_same_command_resumes_here_bit_for_bit_and_on_another_layout(folder: Path, references) -> None:
    whole = references["llama"][0]
    tree = lora_tree(folder, "torn")
    begun = run_ranks(1, train_steps, tree, 2, 2)[0]
    other = lora_tree(folder, "torn", TestedLayout(2, 1, 2))
    moved = run_ranks(2, train_steps, other, STEPS)[0]
    assert moved[0][1] == pytest.approx(whole[2][1], abs=LOSS_TOLERANCE)
    assert begun + run_ranks(1, train_steps, tree, STEPS)[0] == whole, "floats are compared bit for bit"
    with pytest.raises(AssertionError, match=r"lora.rank: 3 → 4; a run keeps its adapters, set another run_dir"):
        run_ranks(1, train_steps, lora_tree(folder, "torn", lora=LORA | {"rank": 4}), STEPS)
    with pytest.raises(AssertionError, match=r"lora: \{.*\} → None; a run keeps its adapters"):
        run_ranks(1, train_steps, lora_tree(folder, "torn", lora=None), STEPS)


@pytest.mark.parametrize("stage", [1, 3])  # DeepSpeed has no bf16 at stage 0, and 2 is cut as 1 is
def test_in_bf16_frozen_weights_are_saved_as_they_are_used_and_a_resume_is_exact(folder: Path, stage: int) -> None:
    layout = TestedLayout(2, stage, 1)

    def tree_of(name: str) -> dict[str, Any]:
        tree = lora_tree(folder, f"bf16-{stage}-{name}", layout)
        return tree | {"training": tree["training"] | {"precision": "bf16"}}

    whole = run_ranks(2, train_steps, tree_of("whole"), STEPS)[0]
    begun = run_ranks(2, train_steps, tree_of("torn"), 2, 2)[0]
    found, base = saved(tree_of("torn")), CheckpointReader(newest_whole(folder / "llama/checkpoints")[0])
    for name in base.tensor_names:
        assert torch.equal(found.weight(name), base.weight(name).bfloat16().float()), name
    assert begun + run_ranks(2, train_steps, tree_of("torn"), STEPS)[0] == whole, "floats are compared bit for bit"


def test_recomputed_layers_have_the_same_gradients(folder: Path, references) -> None:
    tree = lora_tree(folder, "again", memory={"recompute": "full"})
    assert run_ranks(1, train_steps, tree, STEPS)[0] == references["llama"][0]


def test_a_run_begins_with_merged_weights(folder: Path, references) -> None:
    tree = lora_tree(folder, "whole", training={"init_from": str(folder / "reference-llama")}, lora=None)
    run_ranks(1, train_steps, tree, 1, 1)
    merged = CheckpointReader(newest_whole(folder / "reference-llama/checkpoints")[0])
    source = saved(tree).manifest.progress.initial_weights
    assert source.path.startswith(str(folder / "reference-llama"))
    begun = CheckpointReader(newest_whole(folder / "whole/checkpoints")[0])
    assert begun.tensor_names == merged.tensor_names
    name = "decoder.layers.1.mlp.linear_fc1.weight"
    raw = references["llama"][1].weight(name)
    assert (merged.weight(name) - raw).abs().max() > 1e-3
    assert (begun.weight(name) - merged.weight(name)).abs().max() < (merged.weight(name) - raw).abs().max()
