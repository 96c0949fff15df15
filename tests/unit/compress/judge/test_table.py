"""Which model is best, what cannot be compared, and that a model's name is text on the page."""

from gptdist.compress.judge.judge import Judgement
from gptdist.compress.judge.page import page
from gptdist.compress.judge.table import comparison_lines, rows_of, shown


def _judged(name: str, **metrics: float) -> Judgement:
    return Judgement(name, metrics, {}, {}, "fingerprint")


def test_the_best_is_marked_where_there_is_one() -> None:
    models = [
        _judged("a", bits_per_byte=1.0, cloze_accuracy=0.2, distinct_1=0.5, parameters=10.0),
        _judged("b", bits_per_byte=1.0, cloze_accuracy=0.1, distinct_1=0.5, parameters=5.0),
        _judged("c", bits_per_byte=1.5, cloze_accuracy=0.2, distinct_1=0.5),
    ]
    best = {row.metric.name: row.best for row in rows_of(models, same_tokens=True)}
    assert best == {"bits_per_byte": (0, 1), "cloze_accuracy": (0, 2), "distinct_1": (), "parameters": ()}
    rows = {row.metric.name: row for row in rows_of(models, same_tokens=True)}
    assert rows["bits_per_byte"].difference(2) == 0.5
    assert rows["bits_per_byte"].difference(0) is None
    assert rows["parameters"].difference(2) is None


def test_losses_a_token_of_different_tokenizers_are_shown_and_not_compared() -> None:
    models = [
        _judged("a", validation_loss=2.0, bits_per_byte=1.0),
        _judged("b", validation_loss=1.0, bits_per_byte=1.2),
    ]
    loss, bits = rows_of(models, same_tokens=False)
    assert (loss.best, loss.difference(1), loss.is_comparable) == ((), None, False)
    assert bits.best == (0,)
    lines = comparison_lines(models, same_tokens=False)
    assert any(line.startswith("validation_loss (nats/token) †") for line in lines)
    assert lines[-1].startswith("† a token is not the same text")


def test_names_are_text_on_the_page() -> None:
    models = [_judged("<script>alert(1)</script>", bits_per_byte=1.0, weights_bytes=10.0)] * 2
    text = page(models, same_tokens=True, command="compare '<b>'")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "&lt;b&gt;" in text


def test_numbers_have_as_many_digits_as_are_of_use() -> None:
    values = (None, 3.0, 123456.7, 1.23456, 0.00012345)
    assert [shown(value) for value in values] == ["-", "3", "123,457", "1.2346", "0.000123"]
