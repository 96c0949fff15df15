"""Texts to rate: drawn anew for each prompt and model, kept, and the same again."""

from pathlib import Path

import pytest

from gptdist.compress.rate import texts
from gptdist.compress.rate.store import Store
from gptdist.compress.rate.texts import continuations
from gptdist.compress.sampling import SamplingOptions
from tests.unit.compress.exported import saved_run

OPTIONS = SamplingOptions(max_new_tokens=12, seed=5)


def test_each_prompt_and_model_gets_draws_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder, _ = saved_run(tmp_path, {})
    store = Store(tmp_path / "votes.sqlite")
    first = continuations(run_folder, "one", ["the loss", "the gain"], OPTIONS, store)
    other = continuations(run_folder, "two", ["the loss"], OPTIONS, store)
    assert first["the loss"] != first["the gain"]
    assert other["the loss"] != first["the loss"]  # the same weights under another name: only the draws differ

    others = Store(tmp_path / "others.sqlite")  # whatever else is asked
    assert continuations(run_folder, "one", ["the gain"], OPTIONS, others) == {"the gain": first["the gain"]}
    monkeypatch.setattr(texts, "open_text_model", None)  # kept: no model is opened
    assert continuations(run_folder, "one", ["the loss"], OPTIONS, store) == {"the loss": first["the loss"]}
