"""Published runs: the planner's error on them, and the page that shows it."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import plan_fit, plan_page
from gptdist.errors import ConfigError
from gptdist.plan.constants import FITTED, MEMORY_BAND, PRIOR, TIME_BAND, TIME_CONSTANTS, Constants
from gptdist.plan.published import PublishedRun, read_published, source_name
from gptdist.plan.score import Score

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def runs() -> list[PublishedRun]:
    return read_published(plan_fit.ROWS)


@pytest.fixture(scope="module")
def held_out(runs: list[PublishedRun]) -> list[Score]:
    return plan_page.held_out_scores(runs)


def scaled(constants: Constants, **factors: float) -> Constants:
    return replace(constants, **{name: getattr(constants, name) * factor for name, factor in factors.items()})


def quantile(errors: list[float], part: float) -> float:
    return sorted(abs(error) for error in errors)[int(part * len(errors))]


def test_time_of_sources_that_were_not_fitted_on(held_out: list[Score]) -> None:
    errors = [score.time_error for score in held_out if score.time_error is not None]
    assert len(errors) > 300
    assert quantile(errors, 0.5) <= 0.10
    assert quantile(errors, 0.9) <= TIME_BAND


def test_memory_of_tables_that_were_not_fitted_on(held_out: list[Score]) -> None:
    errors = [score.memory_error for score in held_out if score.memory_error is not None]
    assert len(errors) > 70
    assert quantile(errors, 0.5) <= 0.055
    assert quantile(errors, 0.9) <= MEMORY_BAND


def test_what_ran_out_of_memory_is_called_and_what_ran_is_not_refused(held_out: list[Score]) -> None:
    out = [score for score in held_out if score.run.ran_out]
    assert len(out) == 5
    assert all(score.fits is False for score in out)
    assert [score.run.row for score in held_out if score.is_refused] == []


def test_the_page_is_what_the_code_says(runs: list[PublishedRun], tmp_path: Path) -> None:
    assert (DOCS / "plan_accuracy.md").read_text("utf-8") == plan_page.page(runs)
    points = plan_page.draw(runs, tmp_path / "picture.svg")
    assert points == sum(run.step_seconds is not None for run in runs) + sum(run.memory_gib is not None for run in runs)
    assert "predicted, held out" in (tmp_path / "picture.svg").read_text("utf-8")


def test_the_planners_constants_are_those_fitted_on_all_rows() -> None:
    assert plan_page.held_out_constants()["all"] == FITTED


def test_a_fit_finds_constants_that_made_the_rows(runs: list[PublishedRun]) -> None:
    truth = scaled(PRIOR, matmul_ampere=0.8, link_fraction=0.7)
    chosen = [run for run in runs if source_name(run) == "bigscience" and run.step_seconds][::4]

    def ratio(run: PublishedRun, constants: Constants) -> float:
        measured = plan_fit.seconds_ratio(run, truth)
        return plan_fit.seconds_ratio(run, constants) / measured

    found = plan_fit.fitted(chosen, ("matmul_ampere", "link_fraction"), ratio, PRIOR, pull=1e-6)
    assert found.matmul_ampere == pytest.approx(truth.matmul_ampere, rel=0.03)
    assert found.link_fraction == pytest.approx(truth.link_fraction, rel=0.15)


def test_the_fit_is_a_lowest_point(runs: list[PublishedRun]) -> None:
    """No constant of time can be moved by a tenth without a larger sum of errors, soft as the fit has them."""
    chosen = [run for run in runs if run.step_seconds]
    lowest = plan_fit.cost(chosen, TIME_CONSTANTS, plan_fit.seconds_ratio, FITTED)
    for name in TIME_CONSTANTS:
        for factor in (0.9, 1.1):
            moved = plan_fit.cost(chosen, TIME_CONSTANTS, plan_fit.seconds_ratio, scaled(FITTED, **{name: factor}))
            assert moved > lowest, (name, factor)


def test_rows_that_cannot_be_read_are_told_at_once(tmp_path: Path) -> None:
    header, first, second, *_ = plan_fit.ROWS.read_text("utf-8").splitlines()
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([header, first.replace(",2304,", ",wide,"), second.replace("A100-80GB", "A900")]))
    with pytest.raises(ConfigError) as error:
        read_published(path)
    assert len(error.value.problems) == 1 or all(str(path) in problem for problem in error.value.problems)
    assert any(problem.startswith(f"{path}:2: cannot be read") for problem in error.value.problems)
    assert any("no 'A900'" in problem for problem in error.value.problems)


def test_files_that_hold_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; name a CSV file of published runs"):
        read_published(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="no column source, table"):
        read_published(tmp_path / "other.csv")


def test_constants_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "constants.yaml"
    path.write_text("matmul_hopper: 0.5\n")
    assert Constants.read(path) == replace(FITTED, matmul_hopper=0.5)
    path.write_text("matmul_hoper: 0.5\nlink_fraction: -1\n")
    with pytest.raises(ConfigError) as error:
        Constants.read(path)
    assert len(error.value.problems) == 2
