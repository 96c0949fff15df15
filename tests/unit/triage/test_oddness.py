"""What is odd about samples is found beside ordinary ones, each measure by what it is for."""

import random

import numpy as np
import pytest

from gptdist.triage.oddness import Oddness, Reading, measure
from gptdist.triage.page import _sample
from gptdist.triage.samples import FoundSample
from gptdist.triage.text import document_text, sample_lines


def _text(seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(["loss", "model", "token", "shard", "rank", "step", "layer"]) for _ in range(60))


def _reading(text: str, digest: str = "") -> Reading:
    return Reading(np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64), text, frozenset([digest or text]))


ORDINARY = [_reading(_text(seed)) for seed in range(40)]


def _found(*odd: Reading, losses: list[float | None] | None = None, usual: tuple[float, ...] = ()) -> list[Oddness]:
    batch = [_reading(_text(100 + seed)) for seed in range(6)] + list(odd)
    return measure(batch, ORDINARY, losses or [None] * len(batch), usual)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model rank shard step token loss layer " * 10, "repetition"),
        (_text(7) + "\x00\x1b[2J\ufffd\x07\x07\x07" * 4, "odd_characters"),
        ("QWXYZ JUVKF QXZJW 0918273645 %&$#@" * 3, "rarity"),
    ],
    ids=["repetition", "odd_characters", "rarity"],
)
def test_each_measure_finds_its_kind(text: str, reason: str) -> None:
    *others, odd = _found(_reading(text))
    assert odd.reason == reason
    assert odd.suspicion > 6.0
    assert all(one.suspicion < 6.0 for one in others)


def test_the_same_text_in_several_samples_is_counted() -> None:
    copies = _found(*[_reading(_text(200 + seed), "same") for seed in range(4)])
    assert [one.measures["same_document"] for one in copies] == [0] * 6 + [3] * 4
    assert [one.z_scores["same_document"] for one in copies[6:]] == [3.0] * 4


def test_losses_are_compared_with_usual_ones_or_with_each_other() -> None:
    losses: list[float | None] = [3.0, 3.1, 3.0, 3.1, 3.0, 3.1, 9.0, None, 3.05, 3.05]
    extra = [_reading(_text(300 + seed)) for seed in range(4)]
    alone = _found(*extra, losses=losses)
    assert max(range(10), key=lambda index: alone[index].suspicion) == 6
    assert alone[6].reason == "loss"
    assert "loss" not in alone[7].measures
    beside = _found(*extra, losses=losses, usual=(9.0,) * 20)
    assert beside[6].z_scores["loss"] == 0.0
    assert beside[0].z_scores["loss"] == pytest.approx(-60.0)


def test_without_ordinary_samples_nothing_is_compared() -> None:
    (one,) = measure([_reading("abc")], [], [None], [])
    assert (one.z_scores, one.suspicion, one.reason) == ({}, 0.0, "")


DOCUMENT = {
    "path": "a\x1b]0;evil\x07.jsonl",
    "record": 3,
    "offset": 17,
    "url": "http://x/<b>",
    "shard": "train-00000",
    "document": 5,
    "tokens": 9,
    "document_tokens": 30,
}


def test_text_of_the_data_commands_no_terminal_and_no_page() -> None:
    text = "<script>alert(1)</script>\x1b[2J\x9b31m\n\u202eabc" + "x" * 500
    found = FoundSample(4, "prose", 0, (DOCUMENT,), text, Oddness({"loss": 9.0}, {"loss": 7.5}))
    shown = "\n".join(sample_lines(found))
    assert shown.replace("…", "").isascii()
    assert not any(bad in shown for bad in ("\x1b", "\x9b", "\x07", "\u202e"))
    assert "\\x1b[2J\\x9b31m\\n\\u202eabcxxx" in shown
    assert f" … ({len(text)} characters)" in shown
    assert "suspicion 7.5, for its loss" in shown
    assert document_text(DOCUMENT) == (
        "a\\x1b]0;evil\\x07.jsonl, record 3, byte 17, http://x/<b>; train-00000 document 5, 9 of 30 tokens"
    )
    page = _sample(found)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "<b>" not in page
    assert "x" * 500 in page, "whole"
