"""Kept logits: draws whose mean gradient is the whole teacher's, files that a kill does not harm, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdist.checkpoint.teacher import check_cache, check_teacher
from gptdist.compress import cache_logits
from gptdist.compress.cache_logits import CacheOptions, CacheRun, drawn_tokens, likeliest_tokens, write_cache
from gptdist.config.distillation import DistillationConfig
from gptdist.config.run import RunConfig
from gptdist.data.logit_cache import KeptLogits, LogitCache
from gptdist.data.sources import check_data
from gptdist.errors import ConfigError, DataError, GptDistError
from gptdist.model.chunked_head import VocabularyShard
from gptdist.model.distillation_loss import Objective, SparseTargets, distillation_loss
from tests.support.datasets import run_tree
from tests.unit.compress.exported import saved_run

PLACES, VOCABULARY, DRAWS, REPEATS = 6, 20, 12, 3000


def gradient(student: torch.Tensor, kept: KeptLogits, *, has_rest: bool = False) -> torch.Tensor:
    """Return the gradient of the mean divergence by the logits, which an output matrix of ones makes hidden states."""
    hidden = student.clone().requires_grad_()
    ids, probabilities, constant = (
        torch.from_numpy(value).flatten(0, 1) for value in (kept.ids, kept.probabilities, kept.constant)
    )
    targets = SparseTargets(ids, probabilities.double(), constant.double(), has_rest)
    shard = VocabularyShard(0, VOCABULARY, None)
    labels = torch.zeros(len(student), dtype=torch.int64)
    distillation_loss(hidden, torch.eye(VOCABULARY).double(), labels, shard, targets, Objective())[0].backward()
    assert hidden.grad is not None
    return hidden.grad * len(student)


def test_the_mean_gradient_of_draws_is_the_whole_teachers() -> None:
    generator = torch.Generator().manual_seed(1)
    teacher, student = (2 * torch.randn(PLACES, VOCABULARY, generator=generator).double() for _ in range(2))
    whole = student.softmax(1) - teacher.softmax(1)
    numbers = torch.rand(REPEATS, PLACES, DRAWS, generator=generator).double()
    drawn = drawn_tokens(teacher.expand(REPEATS, -1, -1), numbers)
    assert np.allclose(drawn.probabilities.sum(-1), 1.0)
    mean = gradient(student.repeat(REPEATS, 1), drawn).view(REPEATS, PLACES, VOCABULARY).mean(0)
    deviation = (teacher.softmax(1) * (1 - teacher.softmax(1)) / (REPEATS * DRAWS)).sqrt()
    assert ((mean - whole).abs() < 5 * deviation + 1e-6).all(), "five standard deviations"

    likeliest = likeliest_tokens(teacher.unsqueeze(0), 4)
    alone = (gradient(student, likeliest) - whole).abs().max()
    assert alone > 20 * (mean - whole).abs().max(), "the likeliest alone give another gradient, however often"


def test_the_likeliest_and_their_rest_are_the_divergence_of_lumps() -> None:
    """With all tokens but one kept, the rest is that one, and the gradient is the whole teacher's."""
    generator = torch.Generator().manual_seed(2)
    teacher, student = (torch.randn(PLACES, VOCABULARY, generator=generator).double() for _ in range(2))
    kept = likeliest_tokens(teacher.unsqueeze(0), VOCABULARY - 1)
    off = gradient(student, kept, has_rest=True) - (student.softmax(1) - teacher.softmax(1))
    assert off.abs().max() < 1e-6, "probabilities are stored in fp32"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a trained teacher in it, and the config of a run on its data."""
    folder = tmp_path_factory.mktemp("cache")
    saved_run(folder, {})
    return folder, run_tree(folder)


def opened(saved: tuple[Path, dict[str, Any]], **changes: Any) -> CacheRun:
    """Return the run, changed, under the teacher."""
    tree = {**saved[1], "distillation": {"teacher": str(saved[0] / "run")}}
    for section, values in changes.items():
        tree[section] = {**tree[section], **values} if isinstance(values, dict) else values
    config = RunConfig.from_tree(tree)
    assert not config.problems()
    tokenizer, data = check_data(config)
    return CacheRun(config, tokenizer, data, check_teacher(config, tokenizer))


def test_a_kill_loses_no_more_than_a_file(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_logits, "FILE_BYTES", 8 * 32 * 40)  # 8 samples
    run, options = opened(saved), CacheOptions(samples=20)
    whole = write_cache(run, tmp_path / "whole", options)
    assert [file.samples for file in whole.files] == [8, 8, 4]

    def killed(done: int, _: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cache(run, tmp_path / "torn", options, killed)
    (tmp_path / "torn" / "logits-0000000008.safetensors.partial").write_bytes(b"half of a file")
    assert write_cache(run, tmp_path / "torn", options) == whole, "files are compared by their hashes"

    cache, rows = LogitCache(tmp_path / "torn"), run.data.rows(7, 2)
    together = cache.rows(7, rows)
    assert together.ids.shape == (2, 32, 12)
    assert np.array_equal(together.ids[1], cache.rows(8, rows[1:]).ids[0]), "over the border of two files"
    with pytest.raises(DataError, match=r"sample 6 is of other tokens than the run's"):
        cache.rows(6, rows[:1])
    with pytest.raises(DataError, match=r"ends at sample 19, sample 20 is wanted; write the rest"):
        cache.rows(20, rows[:1])
    path = tmp_path / "torn" / whole.files[0].name
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=r"logits-0000000000.safetensors: missing or damaged"):
        LogitCache(tmp_path / "torn").rows(0, run.data.rows(0, 1))


def test_the_drawn_ones_follow_from_seed_and_sample() -> None:
    first, again, other = (cache_logits.uniform_numbers(1, sample, 3, 4) for sample in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.isin(first, other).any()


def test_a_cache_of_something_else_is_refused(saved: Any, tmp_path: Path) -> None:
    run, folder = opened(saved), tmp_path / "cache"
    write_cache(run, folder, CacheOptions(samples=16))

    def refused(message: str, section: dict[str, Any] | None = None, **changes: Any) -> None:
        other = opened(saved, **changes)
        settings = DistillationConfig.from_tree({"cache": str(folder), **(section or {})})
        config = other.config.model_copy(update={"distillation": settings})
        with pytest.raises(ConfigError, match=message):
            check_cache(config, other.tokenizer, other.data)

    short = {"training": {"train_steps": 2}, "schedule": {"warmup_steps": 1}}
    refused(r"holds 16 samples, the run learns from 48; write the rest")
    refused(r"order: \w{12} → \w{12} \(the run's\); write a cache for this run", seed=5, **short)
    refused(r"temperature: 1.0 → 2.0 \(the run's\)", {"temperature": 2.0}, **short)
    refused(r"separate_documents: False → True", data={"separate_documents": True}, **short)
    settings = DistillationConfig(cache=folder, until_step=2)
    config = run.config.model_copy(update={"distillation": settings})
    assert check_cache(config, run.tokenizer, run.data).num_samples == 16

    with pytest.raises(ConfigError, match=r"--output: .*cache holds a cache of something else \(kept: 12 → 3\)"):
        write_cache(run, folder, CacheOptions(kept=3, samples=16))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(ConfigError, match=r"full is not empty and holds no cache; choose another folder"):
        write_cache(run, tmp_path / "full", CacheOptions())


def test_a_damaged_manifest_is_refused(saved: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(DataError, match=r"logits.json: cannot be read .* name a folder that `gptdist distill cache`"):
        LogitCache(folder)
    write_cache(opened(saved), folder, CacheOptions(samples=2))
    path = folder / "logits.json"
    tree = json.loads(path.read_text())
    for change, message in (
        ({"version": 2}, r"is no gptdist-logits of version 1"),
        ({"facts": 3}, r"the manifest is damaged, write the cache again"),
        ({"files": [tree["files"][0] | {"name": "../x"}]}, r"file name '../x' leads out of the folder"),
    ):
        path.write_text(json.dumps(tree | change))
        with pytest.raises(DataError, match=message):
            LogitCache(folder)


def test_options_out_of_range_are_refused(saved: Any, tmp_path: Path) -> None:
    for options, message in (
        (CacheOptions(kept=256), r"--samples-per-token: must be from 1 to 255, got 256"),
        (CacheOptions("top_k", 257), r"--top-k: must be from 1 to model.vocab_size - 1 \(256\), got 257"),
        (CacheOptions(samples=0), r"--samples: must be at least 1, got 0"),
    ):
        with pytest.raises(GptDistError, match=message):
            write_cache(opened(saved), tmp_path / "none", options)
