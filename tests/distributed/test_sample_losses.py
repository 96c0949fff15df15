"""The loss of each sample of a skipped step is the same on every layout, and the dump shows the worst at the top."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import GPT2, LLAMA, run_tree
from tests.support.jobs import open_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

TOLERANCE = 2e-6
"""fp32, sums in another order."""

RAMP = [{"until_samples": 8, "seq_length": 8}]
MASKS = {"separate_documents": True, "loss_mask": {"ignore_tokens": [32], "ignore_document_starts": True}}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
LAYOUTS = [
    TestedLayout(1, 0, 1),
    TestedLayout(2, 3, 1),
    TestedLayout(2, 1, 2, sequence_parallel=True),
    TestedLayout(2, 2, 1, context_parallel_size=2),
    TestedLayout(2, 1, 1, pipeline_parallel_size=2),
    TestedLayout(4, 1, 1, pipeline_parallel_size=2),
]


def losses_of_samples(tree: dict[str, Any], bad_step: int) -> dict[str, Any]:
    """Train to ``bad_step``, whose gradient is infinite; return what ``record_skip`` found, and the module's losses."""
    import torch

    from gptdist.data.batches import Batch, cut_rows
    from gptdist.train.loop import train_step
    from gptdist.train.sample_losses import sample_losses
    from gptdist.train.skip import record_skip
    from gptdist.train.spike_dump import dump_batch

    run = open_run(tree)
    run.parameters[0].parameter.register_hook(
        lambda gradient: gradient * (torch.inf if run.state.step + 1 == bad_step else 1.0)
    )
    while run.state.step < bad_step:
        first, result = run.state.consumed_samples, train_step(run)
        run.state.advance(result)
        record_skip(run, result)
    found: dict[str, Any] = {"first": first, "loss": result.loss, "found": sample_losses(run, first, result.samples)}
    if run.mesh.layout.world_size == 1:
        length = run.config.seq_lengths.at(first)
        run.engine.module.eval()
        found["plain"] = []
        found["odd"] = str(dump_batch(run, range(4), [1.0, None, torch.nan, 2.0], attempt=9))
        for row in run.data.rows(first, result.samples):
            batch = Batch.of(cut_rows([row], length), run.device.torch_device, run.rules)
            logits = run.engine.module(batch.tokens, batch.positions(), batch.attention_mask())
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-1)
            found["plain"].append(losses.item())
    return found


CASES: dict[str, tuple[dict[str, Any], int, list[TestedLayout]]] = {
    "plain": ({"model": GPT2}, 3, [LAYOUTS[0], LAYOUTS[1], LAYOUTS[2], LAYOUTS[5]]),
    # With dropout, layouts whose ranks draw differently are compared at the first step.
    "rich": ({"model": LLAMA | DROPOUT, "data": MASKS, "batch": {"seq_length_ramp": RAMP}}, 1, LAYOUTS[:5]),
}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_every_layout_finds_the_losses_of_one_rank(case: str, tmp_path: Path) -> None:
    changes, bad_step, layouts = CASES[case]
    expected: list[float] = []
    for layout in layouts:
        tree = run_tree(tmp_path, run_dir=str(tmp_path / str(layout)), **layout.sections(), **changes)
        for found in run_ranks(layout.world_size, losses_of_samples, tree, bad_step):
            if layout.world_size == 1:
                expected, odd = found["plain"], _lines(Path(found["odd"]))
            assert found["found"] == pytest.approx(expected, abs=TOLERANCE)
        dumped = _lines(tmp_path / str(layout) / "spikes" / f"step_{bad_step:08d}_attempt_1.jsonl")
        assert [one["loss"] for one in dumped] == sorted(found["found"], reverse=True)
        assert {one["sample"]: one["loss"] for one in dumped} == dict(enumerate(found["found"], found["first"]))
        if case == "plain":  # every sample has as many tokens
            assert sum(found["found"]) / len(dumped) == pytest.approx(found["loss"], abs=TOLERANCE)
    assert [(one["sample"], one["loss"]) for one in odd] == [(2, "nan"), (3, 2.0), (0, 1.0), (1, None)]
