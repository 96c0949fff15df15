"""Adding up the summaries of input shards, and of sources."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.account import SAMPLES_PER_OUTCOME

DAMAGE_EXAMPLES = 20
_SIZES = ("documents_in", "bytes_in", "documents_out", "bytes_out")


def merge_summaries(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of what ``Account.summary`` gave for several shards, in the same form.

    Counts are added; of each outcome's samples those with the smallest priorities are kept, which are the same
    however the corpus was cut; of damage the first examples, in the order of ``summaries``.
    """
    return {
        "passages": _passages([summary["passages"] for summary in summaries]),
        "counts": _added([summary["counts"] for summary in summaries]),
        "damage": _added([summary["damage"] for summary in summaries]),
        "damage_examples": [text for summary in summaries for text in summary["damage_examples"]][:DAMAGE_EXAMPLES],
        "records_read": sum(summary["records_read"] for summary in summaries),
        "samples": _samples([summary["samples"] for summary in summaries]),
    }


def _added(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _passages(passages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up passages; a stage stands where it first appears."""
    total: dict[str, Any] = {}
    for one in passages:
        for stage, passage in one.items():
            known = total.setdefault(stage, {**dict.fromkeys(_SIZES, 0), "dropped": {}})
            for size in _SIZES:
                known[size] += passage[size]
            known["dropped"] = _added([known["dropped"], passage["dropped"]])
    return total


def _samples(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    for one in samples:
        for outcome, entries in one.items():
            found.setdefault(outcome, []).extend(entries)
    return {outcome: sorted(found[outcome], key=_sample_order)[:SAMPLES_PER_OUTCOME] for outcome in sorted(found)}


def _sample_order(entry: Any) -> tuple[int, str, int]:
    priority, sample = entry
    return priority, sample["path"], sample["record"]
