"""Write docs/layouts.md from what the layouts' tests find: ``python -m tests.layout_table``, some minutes.

A kind of layout is called tested only where a test of it has just passed.
"""

import sys
from collections.abc import Set
from pathlib import Path

import pytest

from gptdist.config.layouts import ZERO_STAGES, LayoutKind, all_kinds
from tests.support.layouts import ONE_RANK
from tests.support.ranks import repository

TEST = "test_layout_equals_one_rank"
FILES = {"test_layouts.py": False, "test_pipeline.py": False, "test_moe.py": True}
"""Files of tests/distributed that have it, and whether their models have experts."""

PAGE = "docs/layouts.md"
HEAD = """# Layouts

Written by `python -m tests.layout_table` from the tests' results; a test compares it with the code
(`gptdist/config/layouts.py`). *tested*: losses, gradient norms and every gradient equal those of one rank, in fp32 to
1e-5 of a tensor's largest gradient, on up to 16 ranks. Everything else is refused when the config is read, with the
reason and what to do, exit status 2. What bears on other things than these axes is in [training.md](training.md).

"""


class Passed:
    """Which kinds' tests have all passed: a plugin of pytest."""

    def __init__(self) -> None:
        """Begin with the layout that the others are compared with."""
        self.kinds = {ONE_RANK.kind(), ONE_RANK.kind(has_experts=True)}
        self._failed: set[LayoutKind] = set()
        self._of: dict[str, LayoutKind] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        """Note what each test is about."""
        for item in items:
            if item.originalname == TEST:
                layout = item.callspec.params["layout"]
                self._of[item.nodeid] = layout.kind(has_experts=FILES[item.path.name])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how it went."""
        kind = self._of[report.nodeid]
        if not report.passed:
            self._failed.add(kind)
        elif report.when == "call":
            self.kinds.add(kind)
        self.kinds -= self._failed


def page(tested: Set[LayoutKind]) -> str:
    """Return the page where exactly ``tested`` have been compared with one rank.

    Raises:
        ValueError: a kind is neither tested nor refused, or both.
    """
    lines = {False: ["## Dense models"], True: ["## Mixtures of experts"]}
    reasons: dict[str, int] = {}
    for rows in lines.values():
        rows += ["| split over ranks | " + " | ".join(f"ZeRO {stage}" for stage in ZERO_STAGES) + " |"]
        rows += ["| --- |" + " --- |" * len(ZERO_STAGES)]
    cells: dict[tuple[bool, str], list[str]] = {}
    for kind in all_kinds():
        refusals = kind.refusals()
        if (kind in tested) == bool(refusals):
            raise ValueError(f"{kind} with ZeRO {kind.zero_stage}: neither tested nor refused, or both")
        numbers = ", ".join(str(reasons.setdefault(refusal, len(reasons) + 1)) for refusal in refusals)
        nearest = kind.neighbour()
        where = f"{nearest}, ZeRO {nearest.zero_stage}" if nearest.zero_stage != kind.zero_stage else str(nearest)
        cell = f"refused ({numbers}): {where}" if refusals else "tested"
        cells.setdefault((kind.has_experts, str(kind)), []).append(cell)
    for (experts, name), row in cells.items():
        lines[experts].append(f"| {name} | " + " | ".join(row) + " |")
    notes = ["Behind a refusal stands the nearest layout that can be trained. Reasons:", ""]
    notes += [f"{number}. `{reason}`" for reason, number in reasons.items()]
    blocks = [*("\n".join([rows[0], "", *rows[1:]]) for rows in lines.values()), "\n".join(notes)]
    return HEAD + "\n\n".join(blocks) + "\n"


def main() -> int:
    """Run the tests, then write the page."""
    passed = Passed()
    files = [str(repository() / "tests" / "distributed" / name) for name in FILES]
    status = pytest.main([*files, "-q", "-k", TEST], plugins=[passed])
    if status:
        return int(status)
    Path(repository(), PAGE).write_text(page(passed.kinds), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
