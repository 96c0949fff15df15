"""Scores from outside: a function of the user's, or a fastText model."""

import importlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptdist.config.prep_quality import ClassifierSection, FastTextSection
from gptdist.errors import DataError

Scorer = Callable[[list[str]], Sequence[float]]


def load_scorer(section: ClassifierSection) -> Scorer:
    """Return what scores texts.

    Raises:
        DataError: it cannot be loaded.
    """
    if section.fasttext is not None:
        return _fasttext_scorer(section.fasttext)
    assert section.function is not None, "the config's check demands a function or a model"
    return _imported(section.function)


def score(scorer: Scorer, texts: list[str], name: str) -> list[float]:
    """Return a finite score for each text.

    Raises:
        DataError: the scorer's answer is something else.
    """
    answer = scorer(texts)
    try:
        scores = [float(value) for value in answer]
    except (TypeError, ValueError) as error:
        raise DataError(f"quality.classifier: {name} must return numbers ({error}); mend it") from error
    if len(scores) != len(texts):
        raise DataError(f"quality.classifier: {name} returned {len(scores)} scores for {len(texts)} texts; mend it")
    if not all(map(math.isfinite, scores)):
        bad = next(value for value in scores if not math.isfinite(value))
        raise DataError(f"quality.classifier: {name} returned {bad} as a score, which no threshold sorts; mend it")
    return scores


def _imported(name: str) -> Scorer:
    where = "quality.classifier.function"
    module_name, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except ImportError as error:
        raise DataError(f"{where}: '{name}' cannot be imported ({error}); install it, or set PYTHONPATH") from error
    if not callable(function):
        raise DataError(f"{where}: module {module_name} has no function {attribute}; change the name")
    scorer: Scorer = function
    return scorer


def _fasttext_scorer(section: FastTextSection) -> Scorer:
    model = _fasttext_model(section.path)

    def probabilities(texts: list[str]) -> list[float]:
        return [_probability(model, text, section.label) for text in texts]

    if not section.label.startswith("__label__"):
        raise DataError(
            f"quality.classifier.fasttext.label: '{section.label}' is no label of fastText; "
            f"write '__label__{section.label}'"
        )
    return probabilities


def _probability(model: Any, text: str, label: str) -> float:
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    labels, values = model.predict(line, k=-1)
    return next((float(value) for name, value in zip(labels, values, strict=True) if name == label), 0.0)


@lru_cache(maxsize=2)
def _fasttext_model(path: Path) -> Any:
    where = "quality.classifier.fasttext.path"
    if not path.is_file():
        raise DataError(f"{where}: '{path}' does not exist; change the path")
    import fasttext

    try:
        return fasttext.load_model(str(path))
    except ValueError as error:
        raise DataError(f"{where}: '{path}' is no model of fastText ({error}); change the path") from error
