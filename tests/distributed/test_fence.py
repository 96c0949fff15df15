"""Ranks of a launch that was given up, and does not know it, come to their next save."""

from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.find import newest_whole
from gptdist.telemetry.ledger import read_checked
from tests.support.datasets import run_tree
from tests.support.jobs import open_run
from tests.support.ranks import run_ranks


def train_until_given_up(tree: dict[str, Any], when: str) -> str:
    """Save, be given up before the next save or within it, save; return what ends this rank."""
    import os

    from gptdist.checkpoint.save import UnfinishedCheckpoint
    from gptdist.errors import GptDistError
    from gptdist.telemetry.fence import make_current
    from gptdist.telemetry.rank_log import LOG_DIR
    from gptdist.train.loop import save, train_step

    logs = Path(tree["run_dir"]) / "logs"
    os.environ[LOG_DIR] = str(logs / "launch_0001")
    run = open_run(tree)
    if run.mesh.is_lead:
        make_current(logs / "launch_0001")
    run.state.advance(train_step(run))
    save(run, is_final=True)
    run.state.advance(train_step(run))
    if run.mesh.is_lead and when == "before":
        make_current(logs / "launch_0002")
    if run.mesh.is_lead and when == "within":
        begin = UnfinishedCheckpoint.begin

        def begin_and_be_given_up(self: UnfinishedCheckpoint) -> None:
            begin(self)
            make_current(logs / "launch_0002")

        UnfinishedCheckpoint.begin = begin_and_be_given_up  # type: ignore[method-assign] # the moment that counts
    try:
        save(run, is_final=True)
    except GptDistError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("when", ["before", "within"])
def test_no_rank_goes_on_and_nothing_is_written(tmp_path: Path, when: str) -> None:
    tree = run_tree(tmp_path)
    texts = run_ranks(2, train_until_given_up, tree, when)
    assert all("launch_0001: was given up, and launch_0002 goes on with the run" in text for text in texts), texts
    newest, passed_over = newest_whole(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert (newest.name, passed_over) == ("step_00000001", [])
    events, torn, edited = read_checked(tmp_path / "run" / "ledger.jsonl")
    assert [event.facts["event"] for event in events] == ["start", "checkpoint"]
    assert not torn + edited
