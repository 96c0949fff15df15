"""Near-duplicates: what is planted is found, what is unrelated stays, and neither tasks nor shards change that."""

import itertools
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_prep.dedup import signed_corpus
from data_prep.dedup.clusters import Clusters, cluster_summary
from data_prep.dedup.cutting import text_bytes
from data_prep.dedup.minhash import Signatures, least_equal, signatures_of, similarity_of
from data_prep.dedup.pairs import alike, meetings_of
from data_prep.dedup.removals import removal_outcomes
from data_prep.dedup.signature_files import shard_groups
from data_prep.steps.dedup import dedup_steps
from data_prep.steps.exact import Exact, ExactRecords
from data_prep.steps.near import NearClusters, NearEdges, NearSignatures
from data_prep.work import Work
from tests.unit.data_prep.dedup_work import cut_into, make_dedup_work, run_steps, surviving_texts

ALPHABETS = {
    "latin": "etaoinshrdlucmfwypvbgk",
    "cyrillic": "\u043e\u0435\u0430\u0438\u043d\u0442\u0441\u0440\u0432\u043b\u043a\u043c\u0434\u043f\u0443\u044f",
    "arabic": "\u0627\u0644\u064a\u0645\u0648\u0646\u0631\u062a\u0628\u0629\u0639\u062f\u0633\u0641",
    "chinese": "".join(map(chr, range(0x4E00, 0x4E00 + 900))),
}


def vocabulary(script: str, words: int = 3000) -> list[str]:
    choose = random.Random(script)
    sizes = (1, 2) if script == "chinese" else (2, 3, 4, 5, 6, 7, 8, 9)
    return ["".join(choose.choices(ALPHABETS[script], k=choose.choice(sizes))) for _ in range(words)]


def make_text(choose: random.Random, words: Sequence[str], count: int, script: str) -> str:
    """Words whose frequencies fall as Zipf's law says."""
    weights = [1 / (rank + 3) for rank in range(len(words))]
    chosen = choose.choices(words, weights, k=count)
    between = "" if script == "chinese" else " "
    return between.join(word + (". " if number % 11 == 10 else "") for number, word in enumerate(chosen))


def edited(choose: random.Random, text: str, words: Sequence[str], share: float = 0.1) -> str:
    """Replace, remove or follow by another word a share of the words, anywhere."""
    parts = re.findall(r"[^\s\u4e00-\u9fff]+\s*|[\u4e00-\u9fff]", text)
    for place in choose.sample(range(len(parts)), round(share * len(parts))):
        space = " " if parts[place].endswith(" ") else ""
        new = choose.choice(words) + space
        parts[place] = choose.choice([new, "", parts[place] + new])
    return "".join(parts)


def signed(texts: Sequence[str], **changes: int) -> Signatures:
    offsets, data = text_bytes(pa.array(texts, pa.large_string()))
    return signatures_of(offsets, data, **{"bands": 32, "rows": 4, "shingle_letters": 12, **changes})


def shingles(text: str, size: int = 12) -> set[str]:
    """The shingles by other code than ours, wide characters repeated."""
    normal: list[str] = []
    ends = []
    for character in re.sub(
        "[\x00-/:-@\\[-`{-\x7f\u0080-\u00bf\u2000-\u203f\u3000-\u303f]+", " ", text.lower()
    ).lstrip():
        normal += [character] * (4 if "\u3040" <= character < "\ua000" else 1)
        ends.append(len(normal))
    return {"".join(normal[end - size : end]) for end in ends if end >= size}


def jaccard(one: str, other: str) -> float:
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def estimated_similarity(one: np.ndarray, other: np.ndarray) -> float:
    return float(similarity_of(np.count_nonzero(one == other), len(one)))


def corpus(originals: int = 60) -> tuple[list[str], list[int]]:
    """Texts with planted near-duplicates of half of them, shuffled, and for each the number of its original."""
    choose = random.Random(5)
    scripts = list(ALPHABETS)
    texts, owners = [], []
    for number in range(originals):
        script = scripts[number % len(scripts)]
        words = vocabulary(script)
        text = make_text(choose, words, choose.randrange(300, 600), script)
        copies = [text] + [edited(choose, text, words) for _ in range(2 * (number % 2))]
        texts += copies
        owners += [number] * len(copies)
    order = choose.sample(range(len(texts)), len(texts))
    return [texts[place] for place in order], [owners[place] for place in order]


def found_clusters(work: Work) -> dict[tuple[int, int], tuple[int, int]]:
    """Return the kept document of each that went as a near-duplicate."""
    found = {}
    for shard in range(work.num_shards):
        for row, (rule, numbers) in removal_outcomes(work, shard).items():
            if rule == "near":
                found[shard, row] = (numbers["kept_shard"], numbers["kept_row"])
    return found


def run_near(work: Work, **per_range: int) -> None:
    run_steps(work, ExactRecords(), Exact(), NearSignatures(), NearEdges(**per_range), NearClusters())


def test_planted_near_duplicates_are_found_and_nothing_else(tmp_path: Path) -> None:
    texts, owners = corpus()
    work = make_dedup_work(tmp_path / "work", [texts], {"near": {}})
    run_near(work)
    kept = [owners[row] for _, row in surviving_texts(work)]
    assert len(set(kept)) == 60, "an original and all its copies are gone: unrelated documents were merged"
    planted = len(owners) - 60
    assert (len(owners) - len(kept)) / planted >= 0.95
    first = {owner: owners.index(owner) for owner in reversed(owners)}
    for (_, row), (_, keeper) in found_clusters(work).items():
        assert owners[row] == owners[keeper]
        assert keeper == first[owners[row]] or keeper < row
    marker = work.marker("near_clusters", 0)
    assert marker["removed"] == len(owners) - len(kept)
    assert sum(marker["sizes"].values()) == marker["clusters"]
    assert set(marker["sizes"]) == {"2"}
    assert marker["bytes_a_document"] <= 24
    largest = marker["largest"][0]
    assert largest["size"] == 3
    assert len({owners[row] for _, row in largest["members"]}) == 1


@pytest.mark.parametrize("shards", [1, 5])
@pytest.mark.parametrize("documents_per_range", [3, 1 << 17])
@pytest.mark.parametrize("budget", [10, 1 << 18])
def test_the_same_texts_stay_however_the_work_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int, documents_per_range: int, budget: int
) -> None:
    texts, _ = corpus(24)
    shouted = [text.upper().replace(" ", " - ") for text in texts[:6] + texts[-6:]]  # equal once normalised
    texts += texts[:3] + shouted
    whole = make_dedup_work(tmp_path / "whole", [texts], {"near": {}})
    run_near(whole)
    monkeypatch.setattr(signed_corpus, "SKETCHES_AT_ONCE", budget)
    work = make_dedup_work(tmp_path / "cut", cut_into(texts, shards), {"near": {}})
    run_near(work, documents_per_range=documents_per_range)
    if documents_per_range == 3:
        assert work.marker("near_edges", 0)["tasks"] > 10
    assert list(surviving_texts(work).values()) == list(surviving_texts(whole).values())
    assert len(surviving_texts(work)) <= len(texts) - 3 - len(shouted)


def test_unrelated_pages_with_the_same_header_and_footer_stay_apart(tmp_path: Path) -> None:
    choose = random.Random(11)
    words = vocabulary("latin")
    header, footer = (make_text(choose, words, 60, "latin") for _ in range(2))
    texts = [f"{header}\n{make_text(choose, words, 360, 'latin')}\n{footer}" for _ in range(100)]
    work = make_dedup_work(tmp_path / "work", [texts], {"near": {}})
    run_near(work)
    assert 0.1 < jaccard(texts[0], texts[1]) < 0.2
    assert len(surviving_texts(work)) == 100
    assert work.marker("near_edges", 0)["candidates"] > 0, "none of them met: the test says nothing"


def test_repeated_paragraphs_do_not_count(tmp_path: Path) -> None:
    """Pages that are alike in nothing but a menu that the cuts take out are not near-duplicates."""
    choose = random.Random(11)
    words = vocabulary("latin")
    menu = make_text(choose, words, 500, "latin")
    texts = [f"{menu}\n\n{make_text(choose, words, 100, 'latin')}" for _ in range(10)]
    for dedup, left in (({"near": {}}, 1), ({"near": {}, "lines": {}}, 10)):
        work = make_dedup_work(tmp_path / f"work{left}", [texts], dedup)
        run_steps(work, *dedup_steps(work.config))
        assert len(surviving_texts(work)) == left


@pytest.mark.parametrize("script", list(ALPHABETS))
def test_estimates_are_near_the_jaccard_similarity(script: str) -> None:
    choose = random.Random(1)
    words = vocabulary(script)
    errors = []
    for share in (0.02, 0.05, 0.1, 0.2, 0.4):
        for _ in range(8):
            one = make_text(choose, words, 400, script)
            other = edited(choose, one, words, share)
            sketches = signed([one, other]).sketches
            errors.append(estimated_similarity(*sketches) - jaccard(one, other))
    assert np.sqrt(np.mean(np.square(errors))) < 1.3 * 0.044  # the theory's, at a similarity of a half
    assert abs(np.mean(errors)) < 3 * 0.044 / np.sqrt(len(errors))


def test_short_texts_are_estimated_without_bias_too() -> None:
    """With fewer shingles than values most of the values are borrowed."""
    choose = random.Random(2)
    words = vocabulary("latin")
    errors = []
    for _ in range(200):
        one = make_text(choose, words, 18, "latin")
        other = edited(choose, one, words, 0.06)
        errors.append(estimated_similarity(*signed([one, other]).sketches) - jaccard(one, other))
    assert abs(np.mean(errors)) < 0.03


def test_texts_too_short_are_compared_as_wholes_only(tmp_path: Path) -> None:
    texts = ["a line of a few words", "A line, of a few words!", "a line of a few words", ""]
    work = make_dedup_work(tmp_path / "work", [texts], {"near": {}})
    run_near(work)
    assert list(surviving_texts(work).values()) == [texts[0], texts[1], texts[3]]
    assert work.marker("near_signatures", 0)["too_short"] == 3


@pytest.mark.parametrize("size", [4, 7, 8, 9, 12, 16])
def test_a_signature_depends_on_the_normalised_shingles_alone(size: int) -> None:
    russian = "\u041b\u0435\u043d\u0438\u0432\u044b\u0439 \u0420\u044b\u0441\u044c"
    text = f"The quick brown fox, it jumped over 12 lazy dogs; {russian}. " * 3
    same = f"  the QUICK\tbrown\u00a0fox: it jumped \u2014 over 12 lazy dogs \n{russian}\u3002" * 5
    other = text.replace("12", "13")
    signatures = signed([text, same, other], shingle_letters=size)
    assert np.array_equal(signatures.keys[:, 0], signatures.keys[:, 1])
    assert np.array_equal(signatures.sketches[0], signatures.sketches[1])
    assert signatures.keys[-1, 0] != signatures.keys[-1, 2]


def test_shingles_are_of_the_size_asked_for() -> None:
    """A byte further back than a shingle reaches changes nothing but the shingles that hold it."""
    for size in (5, 8, 12, 16):
        tail = "abcdefghijklmnopqrstuvwxyz"[:size]
        ends = signed(["0" + tail, "1" + tail], shingle_letters=size, bands=1, rows=1)
        only = signed([tail], shingle_letters=size, bands=1, rows=1)
        assert only.letters.tolist() == [size]
        values = {int(ends.keys[0, 0]), int(ends.keys[0, 1])}
        assert int(only.keys[0, 0]) in values or len(values) == 2
        assert len(shingles("0" + tail, size)) == 2


def test_signatures_never_change() -> None:
    """Raise ``VERSION`` if they have to."""
    signatures = signed(["The signatures of a corpus are compared with those of yesterday, one shard after the other."])
    assert signatures.letters.tolist() == [90]
    assert [hex(key) for key in signatures.keys[[0, 31, 32], 0].tolist()] == KEYS


KEYS = ["0x8a0b2c789fff068f", "0x2700abb9eb88b692", "0xda168fc09aa1fb75"]


def test_meetings_are_the_keys_that_several_have() -> None:
    keys = np.array([9, 4, 9, 7, 4, 9, 1], dtype=np.uint64)
    begins, members = meetings_of(keys, np.array([0, 1, 2, 3, 14, 15, 16]))
    assert [members[b:e].tolist() for b, e in itertools.pairwise(begins)] == [[1, 14], [0, 2, 15]]
    for none in (keys[:0], keys[:2]):
        begins, members = meetings_of(none, np.arange(len(none)))
        assert (begins.tolist(), members.tolist()) == ([0], [])


def test_one_who_is_like_no_leader_leads_the_next() -> None:
    sketches = np.array([[1, 1, 1, 1], [2, 2, 2, 2], [1, 1, 1, 3], [2, 2, 2, 3], [2, 2, 5, 5]], dtype=np.uint8)
    later, earlier = alike(np.array([0, 5]), np.arange(5), sketches, 3)
    assert list(zip(later.tolist(), earlier.tolist(), strict=True)) == [(2, 0), (3, 1)]


def test_thresholds_leave_room_for_values_equal_by_chance() -> None:
    assert least_equal(1.0, 128) == 128
    assert least_equal(0.5, 128) == 65
    assert least_equal(0.0, 128) == 0
    one = np.arange(128, dtype=np.uint8)
    other = one.copy()
    other[:63] += 1
    assert estimated_similarity(one, other) >= 0.5
    other[63] += 1
    assert estimated_similarity(one, other) < 0.5


@pytest.mark.parametrize("order", [1, -1])
def test_clusters_are_the_connected_components(order: int) -> None:
    choose = np.random.default_rng(4)
    pairs = choose.integers(0, 500, (300, 2))
    expected = np.arange(500)
    for _ in range(500):  # brute force: the smallest number spreads along the pairs
        np.minimum.at(expected, pairs[:, 0], expected[pairs[:, 1]])
        np.minimum.at(expected, pairs[:, 1], expected[pairs[:, 0]])
    clusters = Clusters(500)
    clusters.join(pairs[::order, 0], pairs[::order, 1])
    firsts = clusters.firsts()
    assert firsts.tolist() == expected.tolist()
    summary = cluster_summary(firsts)
    sizes = np.unique(expected, return_counts=True)[1]
    assert summary["clusters"] == (sizes > 1).sum()
    assert summary["removed"] == 500 - len(sizes)
    assert sum(summary["sizes"].values()) == summary["clusters"]
    assert [cluster["size"] for cluster in summary["largest"]] == sorted(sizes[sizes > 1].tolist())[::-1][:20]
    for cluster in summary["largest"]:
        members = cluster["members"]
        assert members == np.flatnonzero(expected == members[0])[:5].tolist()


def test_a_document_goes_for_one_that_it_is_like_itself(tmp_path: Path) -> None:
    """A chain of texts, each like its neighbours, whose ends have nothing in common."""
    choose = random.Random(8)
    words = [f"{number:x}{number * 7919 % 10007:x}" for number in range(3000)]
    parts = [" ".join(choose.sample(words, 100)) for _ in range(15)]
    chain = [" ".join(parts[begin : begin + 4]) for begin in range(12)]
    likeness = [jaccard(chain[0], chain[step]) for step in (1, 2, 3, 4)]
    assert np.allclose(likeness, [3 / 5, 2 / 6, 1 / 7, 0], atol=0.05)
    for least, kept in ((0.0, [0]), (0.25, [0, 3, 6, 9]), (0.45, [0, 2, 4, 6, 8, 10])):
        near = {"min_keeper_similarity": least, "bands": 64, "rows": 2}  # neighbours always meet
        work = make_dedup_work(tmp_path / f"work{least}", [chain[:5], chain[5:]], {"near": near})
        run_near(work)
        assert [chain.index(text) for text in surviving_texts(work).values()] == kept
        for shard in range(2):
            for row, (_, numbers) in removal_outcomes(work, shard).items():
                keeper = chain[5 * numbers["kept_shard"] + numbers["kept_row"]]
                assert abs(numbers["similarity"] - jaccard(chain[5 * shard + row], keeper)) < 4 * 0.044
        marker = work.marker("near_clusters", 0)
        assert (marker["chains"], marker["clusters"], marker["removed"]) == (1, len(kept), 12 - len(kept))


def test_groups_of_shards_are_whole_and_bounded() -> None:
    for counts in ([], [0], [5], [1] * 1000, [0, 0, 7, 0, 300, 2, 0], list(range(200))):
        groups = shard_groups(counts, 100)
        assert [shard for group in groups for shard in group] == list(range(len(counts)))
        for group in groups:
            assert sum(counts[shard] for shard in group[:-1]) < 100
    assert len(shard_groups([10] * 1000, 1 << 17)) > 60


def test_markers_say_what_they_counted(tmp_path: Path) -> None:
    texts, _ = corpus(8)
    work = make_dedup_work(tmp_path / "work", [texts], {"near": {"bands": 20, "rows": 5, "shingle_letters": 10}})
    run_near(work)
    marker: dict[str, Any] = work.marker("near_signatures", 0)
    assert (marker["documents"], marker["too_short"], marker["version"]) == (len(texts), 0, 1)
    assert work.marker("near_edges", 0)["edges"] <= work.marker("near_edges", 0)["candidates"]
