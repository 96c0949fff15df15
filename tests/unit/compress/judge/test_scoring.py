"""Sums over windows and continuations equal what is computed token by token."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdist.compress.judge.held_out import HeldOutOptions, held_out_of, shortened, texts_of, translated
from gptdist.compress.judge.scoring import compare_windows, score_continuations, score_windows
from gptdist.compress.judge.sizes import measure_size
from gptdist.compress.judge.subject import Subject, open_subject
from gptdist.errors import ConfigError, DataError, ExportError
from gptdist.tokenizer.training import train_bpe
from tests.support.datasets import make_documents, write_dataset

TOLERANCE = 1e-5
"""Relative: fp32 logits in batches of another shape."""


@pytest.fixture(scope="module")
def subject(llama_folder: Path) -> Subject:
    return open_subject(llama_folder)


WINDOWS = [np.array([*b"the model of a rank"]), np.array([*b"x1"]), np.array([256, *"é=ü".encode()])]


def _log_probabilities(subject: Subject, row: np.ndarray) -> torch.Tensor:
    """ln p of each token but the first, one forward a token, in fp64 behind the logits."""
    found = []
    for end in range(1, len(row)):
        with torch.inference_mode():
            logits = subject.model(torch.tensor([row[:end].tolist()])).logits[0, -1].double()
        found.append(logits.log_softmax(-1)[int(row[end])])
    return torch.stack(found)


def test_windows_of_different_lengths_are_summed_token_by_token(subject: Subject) -> None:
    found = score_windows(subject.model, WINDOWS, subject.token_bytes)
    expected = -sum(float(_log_probabilities(subject, row).sum()) for row in WINDOWS)
    assert found.nats == pytest.approx(expected, rel=TOLERANCE)
    assert found.tokens == sum(len(row) - 1 for row in WINDOWS)
    assert found.text_bytes == found.tokens  # bytes are tokens, and no end of a document is predicted
    assert found.bits_per_byte == pytest.approx(found.loss / math.log(2))


def test_continuations_are_scored_behind_their_contexts_in_any_batch(subject: Subject) -> None:
    pairs = [(list(b"the mod"), list(b"el")), (list(b"a"), list(b" rank of")), (list(b"x" * 170), list(b"yz"))]
    found = score_continuations(subject.model, pairs)
    for (context, continuation), one in zip(pairs, found, strict=True):
        row = np.array([*context, *continuation][-161:])
        logs = _log_probabilities(subject, row)[-len(continuation) :]
        assert one.log_likelihood == pytest.approx(float(logs.sum()), rel=TOLERANCE)
    greedy = _greedy(subject, list(b"the "), 3)
    hit, miss = score_continuations(subject.model, [(list(b"the "), greedy), (list(b"the "), [*greedy[:2], 7])])
    assert hit.is_greedy
    assert not miss.is_greedy


def _greedy(subject: Subject, ids: list[int], count: int) -> list[int]:
    row = list(ids)
    for _ in range(count):
        with torch.inference_mode():
            row.append(int(subject.model(torch.tensor([row])).logits[0, -1].argmax()))
    return row[len(ids) :]


def test_a_model_is_faithful_to_itself_and_not_to_another(subject: Subject, gpt2_folder: Path) -> None:
    itself = compare_windows(subject.model, subject.model, WINDOWS)
    assert (itself.mean_kl, itself.top1_agreement, itself.tokens) == (0.0, 1.0, 24)
    other = open_subject(gpt2_folder)
    found = compare_windows(other.model, subject.model, WINDOWS)
    kl, same = 0.0, 0
    for row in WINDOWS:
        ids = torch.tensor([row[:-1].tolist()])
        with torch.inference_mode():
            reference, ours = (one.model(ids).logits[0].double().log_softmax(-1) for one in (other, subject))
        kl += float((reference.exp() * (reference - ours)).sum())
        same += int((reference.argmax(-1) == ours.argmax(-1)).sum())
    assert found.mean_kl == pytest.approx(kl / 24, rel=TOLERANCE)
    assert found.top1_agreement == same / 24
    assert found.mean_kl > 0.1


def test_sizes_are_counted(subject: Subject, llama_folder: Path) -> None:
    found = measure_size(subject)
    assert found.parameters == sum(parameter.numel() for parameter in subject.model.parameters())
    assert found.nonzero_parameters == found.parameters
    assert found.weights_bytes == (llama_folder / "model.safetensors").stat().st_size
    weight = subject.model.model.layers[0].mlp.up_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:3] = 0.0
    assert measure_size(subject).nonzero_parameters == found.parameters - 3 * weight.shape[1]
    with torch.no_grad():
        weight.copy_(kept)


def test_held_out_windows_are_the_datasets_and_their_text_is_kept_by_another_tokenizer(
    subject: Subject, dataset: Path
) -> None:
    found = held_out_of(subject, HeldOutOptions((dataset,), windows=6))
    (source,) = found
    assert (source.name, source.weight, len(source.windows)) == ("prose", 1.0, 6)
    assert all(len(window) == 161 for window in source.windows)
    texts = texts_of(subject, found)
    assert all(set(text) <= set("abcdefghijklmnopqrstuvwxyz .\n") for text in texts)

    other = Subject(subject.path, subject.text_model, train_bpe(make_documents(50, seed=0), 300))
    assert not other.speaks_like(subject, texts)
    (read,) = translated(found, subject, other)
    assert "".join(other.texts.decode(window[1:].tolist()) for window in read.windows) == "".join(
        other.texts.decode(row[1:].tolist()) for row in other.texts.encode_batch(texts)
    )
    assert sum(len(window) - 1 for window in read.windows) < sum(len(window) - 1 for window in source.windows)


def test_long_windows_are_cut_so_that_each_token_is_predicted_once() -> None:
    from gptdist.compress.judge.held_out import HeldOut

    (found,) = shortened([HeldOut("a", (np.arange(10),), 1.0)], 4)
    assert [window.tolist() for window in found.windows] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9]]


def test_what_cannot_be_judged_on_is_refused(subject: Subject, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"holds no gptdist/held_out.safetensors; name a dataset to judge it on"):
        held_out_of(subject, HeldOutOptions())
    with pytest.raises(ConfigError, match="--data: folder 'nowhere' does not exist; change the path"):
        held_out_of(subject, HeldOutOptions((Path("nowhere"),), windows=-1))
    write_dataset(tmp_path / "tiny", documents=5, shards=1)
    long = Subject(subject.path, subject.text_model, subject.texts)
    long.model.config.max_position_embeddings, kept = 10_000, long.model.config.max_position_embeddings
    try:
        with pytest.raises(DataError, match="less than one window of 10000"):
            held_out_of(long, HeldOutOptions((tmp_path / "tiny",)))
    finally:
        long.model.config.max_position_embeddings = kept
    other = Subject(subject.path, subject.text_model, train_bpe(make_documents(50, seed=0), 300))
    with pytest.raises(DataError, match=r"its tokenizer has 257 ids, that of .* 300; take data of the model's"):
        held_out_of(other, HeldOutOptions((dataset,)))
