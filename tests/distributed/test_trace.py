"""What a trace names is what the ranks read, before and after a resume on another layout with another batch size."""

from pathlib import Path
from typing import Any

from gptdist.data.attempts import attempt_of_step, read_attempts
from gptdist.data.trace import open_traced_data, trace_samples
from tests.support.datasets import run_tree
from tests.support.jobs import open_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks
from tests.support.traced import tokens_of, write_traced_sources

SAVE, LOST, END = 3, 4, 6
BEFORE, AFTER = TestedLayout(2, 1, 1), TestedLayout(4, 1, 2)


def _train_and_watch(tree: dict[str, Any], until: int, save_at: int) -> dict[int, list[list[int]]]:
    """Train to step ``until``; return the rows that this rank read for each step."""
    from gptdist.train.loop import log_step, save, train_step

    run = open_run(tree)
    read, seen, rows = [], {}, run.data.rows

    def watched(first_sample: int, count: int) -> Any:
        found = rows(first_sample, count)
        read.extend(row.tolist() for row in found)
        return found

    run.data.rows = watched  # type: ignore[method-assign]  # it reads as before, and we see what
    while run.state.step < until:
        result = train_step(run)
        run.state.advance(result)
        log_step(run, result)
        seen[run.state.step] = list(read)
        read.clear()
        if run.state.step == save_at:
            save(run, is_final=True)
    return seen


def test_a_trace_is_what_every_rank_read(tmp_path: Path) -> None:
    documents = write_traced_sources(tmp_path / "data")
    run = tmp_path / "run"
    before = run_ranks(2, _train_and_watch, run_tree(tmp_path, **BEFORE.sections()), LOST, SAVE)
    twice = run_tree(tmp_path, batch={"global_batch_size": 16}, **AFTER.sections())
    after = run_ranks(4, _train_and_watch, twice, END, END)
    assert sorted(after[0]) == [4, 5, 6], "went on from the checkpoint"
    attempts = read_attempts(run)
    assert [len(read) for read in (before[0][1], after[0][4])] == [4, 8]
    for step, number, ranks in ((1, 1, before), (3, 1, before), (4, 2, after), (6, 2, after)):
        attempt = attempt_of_step(run, attempts, step)
        assert attempt.number == number
        data = open_traced_data(attempt.config, attempt.data_fingerprints)
        for rank, seen in enumerate(ranks):
            traced = trace_samples(data, attempt.samples_of_rank(step, rank))
            assert [tokens_of(one, documents) for one in traced] == seen[step], f"step {step}, rank {rank}"
    lost = attempt_of_step(run, attempts, LOST, number=1)
    data = open_traced_data(lost.config, lost.data_fingerprints)
    traced = trace_samples(data, lost.samples_of_rank(LOST, 1))
    assert [tokens_of(one, documents) for one in traced] == before[1][LOST], "the step that was done again"
