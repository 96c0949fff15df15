"""Intervals and agreement of known values, and what a results file says."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gptdist.cli.main import main
from gptdist.compress.rate.intervals import bootstrap_by_prompt, cohen_kappa, fleiss_kappa, wilson
from gptdist.compress.rate.report import report
from gptdist.compress.rate.store import BOTH_BAD, LEFT, RIGHT, TIE, Store, Vote
from gptdist.compress.rate.texts import read_prompts
from gptdist.errors import ConfigError


def test_wilson_of_known_values() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_kappa_of_known_values() -> None:
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    # Fleiss 1971, as tabled: ten subjects, fourteen raters, five categories
    table = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    choices = [[str(kind) for kind, count in enumerate(row) for _ in range(count)] for row in table]
    assert fleiss_kappa(choices) == pytest.approx(0.210, abs=5e-4)
    assert cohen_kappa([]) is fleiss_kappa([]) is cohen_kappa([("a", "a")]) is None


def test_bootstrap_draws_whole_prompts() -> None:
    one = bootstrap_by_prompt({str(number): [number % 2 == 0] * 10 for number in range(10)})
    assert one == bootstrap_by_prompt({str(number): [number % 2 == 0] * 10 for number in range(10)})
    low, high = wilson(50, 100)
    assert one[0] < low < high < one[1], "a hundred votes on ten prompts are no hundred independent votes"
    assert bootstrap_by_prompt({"a": []}) == (0.0, 1.0)


def test_the_newest_vote_counts_whatever_side_it_was_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.name_models([("zz", "first"), ("aa", "second")])
    store.add_vote(Vote("p", "zz", "aa", "Ada", LEFT))
    store.add_vote(Vote("p", "zz", "aa", "Ada", RIGHT))
    store.add_vote(Vote("q", "aa", "zz", "Ada", RIGHT))
    store.add_vote(Vote("r", "aa", "zz", "Ada", TIE))
    store.add_vote(Vote("s", "aa", "zz", "Ada", BOTH_BAD))
    (found,) = report(store)
    assert (found.models, found.wins, found.ties, found.both_bad) == (("first", "second"), (1, 1), 1, 1)
    assert (found.win_rate, found.interval, found.interval_method) == (0.5, wilson(1, 2), "Wilson")
    store.add_vote(Vote("q", "zz", "aa", "Bob", LEFT))
    store.add_vote(Vote("r", "zz", "aa", "Bob", RIGHT))
    (found,) = report(store)
    assert (found.wins, found.common_prompts, found.interval_method) == ((2, 2), 2, "bootstrap over prompts")
    assert found.kappa == pytest.approx(cohen_kappa([("zz", "zz"), (TIE, "aa")]))
    assert len(sqlite3.connect(tmp_path / "r.sqlite").execute("select * from votes").fetchall()) == 7, "none is deleted"

    assert main(["rate", "report", str(tmp_path / "r.sqlite")]) == 0
    assert "win rate of [1]         50.0%" in capsys.readouterr().out
    assert main(["rate", "report", str(tmp_path / "r.sqlite"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"][0]["wins"] == [2, 2]
    assert main(["rate", "report", str(tmp_path / "none.sqlite")]) == 2


def test_a_vote_outlives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom gptdist.compress.rate.store import Store, Vote\n"
        "Store(Path(sys.argv[1])).add_vote(Vote('p', 'a', 'b', 'Ada', 'left'))\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "r.sqlite")], check=False)
    assert done.returncode == -9
    assert [vote.rater for vote in Store(tmp_path / "r.sqlite").votes()] == ["Ada"]


def test_files_of_others_and_bad_prompts_are_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("create table mine (a)")
    with pytest.raises(ConfigError, match="is a file of another program; name a new one"):
        Store(tmp_path / "other.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, and long enough to be looked at as one " * 20)
    with pytest.raises(ConfigError, match=r"text.sqlite: cannot be used \(file is not a database\); name another file"):
        Store(tmp_path / "text.sqlite")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\nc\n{"prompt": "a"}\n')
    with pytest.raises(ConfigError) as caught:
        read_prompts(tmp_path / "p.jsonl")
    assert [line.split(":")[1] for line in caught.value.problems] == ["2", "3"]
    (tmp_path / "p.txt").write_text("one\ntwo\none\n")
    assert read_prompts(tmp_path / "p.txt") == ["one", "two"]
    (tmp_path / "long.txt").write_text("x" * 20_001)
    with pytest.raises(ConfigError, match=r"long.txt:1: 20,001 characters, 20,000 at most; shorten it"):
        read_prompts(tmp_path / "long.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ConfigError, match="is empty; write a prompt on each line"):
        read_prompts(tmp_path / "empty.txt")
    with pytest.raises(ConfigError, match=r"'nowhere.txt' cannot be read as UTF-8"):
        read_prompts(Path("nowhere.txt"))
