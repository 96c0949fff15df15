"""Ranges of the guards section."""

from typing import Any

import pytest

from gptdist.config.guards import GuardsConfig


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"max_z_score": 0.0}, "guards.max_z_score: must be above 0, got 0.0; set null for no spikes"),
        ({"window_steps": 1}, "guards.window_steps: must be at least 2, got 1"),
        ({"min_steps": 129}, "guards.min_steps: must be from 2 to guards.window_steps (128), got 129"),
        ({"min_steps": 1}, "guards.min_steps: must be from 2 to guards.window_steps (128), got 1"),
        ({"min_deviation": 0.0}, "guards.min_deviation: must be above 0, got 0.0"),
        ({"max_skips": -1}, "guards.max_skips: must be at least 0, got -1"),
    ],
)
def test_ranges(section: dict[str, Any], problem: str) -> None:
    assert GuardsConfig.from_tree(section).problems() == [problem]


def test_defaults_and_off() -> None:
    assert GuardsConfig().problems() == []
    assert GuardsConfig.from_tree({"max_z_score": None}).problems() == []
