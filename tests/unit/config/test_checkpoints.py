"""What the checkpoints section refuses."""

import importlib.util
from typing import Any

import pytest

from gptdist.config.checkpoints import CheckpointsConfig

RUN = {"save_steps": 100, "eval_steps": 50, "train_steps": 1000}


@pytest.mark.parametrize(
    ("keep", "problem"),
    [
        ({"last": 0}, "checkpoints.keep.last: must be at least 1, got 0; leave the rule out to have none"),
        ({"best": -1}, "checkpoints.keep.best: must be at least 1, got -1; leave the rule out to have none"),
        (
            {"every_steps": 0},
            "checkpoints.keep.every_steps: must be at least 1, got 0; leave the rule out to have none",
        ),
        ({"for_hours": 0.0}, "checkpoints.keep.for_hours: must be above 0, got 0.0; leave the rule out to have none"),
        (
            {"every_steps": 333},
            "checkpoints.keep.every_steps: no step up to training.train_steps (1000) is a multiple of 333 and of "
            "intervals.save_steps (100); set a multiple of save_steps",
        ),
    ],
)
def test_rules(keep: dict[str, Any], problem: str) -> None:
    assert CheckpointsConfig.from_tree({"keep": keep}).problems(**RUN) == [problem]


def test_the_best_needs_validations_where_checkpoints_are() -> None:
    config = CheckpointsConfig.from_tree({"keep": {"best": 3}})
    assert config.problems(**RUN) == []
    assert config.problems(**RUN | {"eval_steps": 77}) == [
        "checkpoints.keep.best: no step up to training.train_steps (1000) has a validation (intervals.eval_steps: 77) "
        "and a checkpoint (intervals.save_steps: 100); set save_steps to a multiple of eval_steps"
    ]
    assert config.problems(**RUN | {"eval_steps": 0}) == [], "said by the intervals already"


def test_defaults() -> None:
    assert CheckpointsConfig().problems(**RUN) == []
    assert CheckpointsConfig().keep.keeps_everything
    assert (
        CheckpointsConfig.from_tree({"keep": {"last": 3, "every_steps": 500, "for_hours": 0.5}}).problems(**RUN) == []
    )


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            {"asynchronous": False, "host_buffer_bytes": 10},
            "checkpoints.host_buffer_bytes: belongs to asynchronous true, not false; remove it",
        ),
        ({"host_buffer_bytes": 0}, "checkpoints.host_buffer_bytes: must be at least 1, got 0"),
        ({"max_failed_saves": 0}, "checkpoints.max_failed_saves: must be at least 1, got 0"),
    ],
)
def test_saving(section: dict[str, Any], problem: str) -> None:
    assert CheckpointsConfig.from_tree(section).problems(**RUN) == [problem]


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/runs/", "gs://my-bucket/a_b/c.d", "file:///mnt/store"])
def test_urls(url: str) -> None:
    assert CheckpointsConfig.from_tree({"remote": {"url": url}}).problems(**RUN) == []


KNOWN = "must begin with one of s3://, gs://, file://, got"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("/mnt/store", f"{KNOWN} no protocol; name a folder that outlives the run"),
        ("memory://x", f"{KNOWN} 'memory://…'; name a folder that outlives the run"),
        ("https://user:pw@host/x", f"{KNOWN} 'https://…'; name a folder that outlives the run"),
        (
            "s3://key:secret@bucket/runs",
            "holds what may be credentials ('@'), and would end up in files; set them in the environment instead",
        ),
        (
            "s3://bucket/runs?versionId=3",
            "'s3://bucket/runs?versionId=3' holds other characters than letters, digits, '_', '-', '.', '=', '+' and "
            "'/'; rename the folder",
        ),
        ("file://store/x", "'file://store/x' is not an absolute path; write file:///… with three slashes"),
        *(
            (
                url,
                f"'{url}' names no folder, or has an empty part, '.' or '..'; write it out, such as s3://bucket/runs",
            )
            for url in ("s3:///", "s3://bucket/../other", "s3://bucket//runs", "file:///", "gs://b/.")
        ),
    ],
)
def test_urls_that_are_refused(url: str, problem: str) -> None:
    assert CheckpointsConfig.from_tree({"remote": {"url": url}}).problems(**RUN) == [
        f"checkpoints.remote.url: {problem}"
    ]


def test_numbers_of_the_remote_store() -> None:
    tree = {"url": "s3://b", "upload_attempts": 0, "retry_seconds": 0.0, "upload_timeout_seconds": -1.0}
    config = CheckpointsConfig.from_tree({"remote": tree | {"keep": {"last": 0}}})
    assert config.problems(**RUN) == [
        "checkpoints.remote.upload_attempts: must be at least 1, got 0",
        "checkpoints.remote.retry_seconds: must be above 0, got 0.0",
        "checkpoints.remote.upload_timeout_seconds: must be above 0, got -1.0",
        "checkpoints.remote.keep.last: must be at least 1, got 0; leave the rule out to have none",
    ]


def test_a_package_that_is_not_installed() -> None:
    assert CheckpointsConfig().package_problems() == []
    assert CheckpointsConfig.from_tree({"remote": {"url": "s3://b"}}).package_problems() == []
    if importlib.util.find_spec("gcsfs") is None:
        assert CheckpointsConfig.from_tree({"remote": {"url": "gs://b"}}).package_problems() == [
            "checkpoints.remote.url: the package gcsfs is not installed; pip install 'gptdist[gcs]', or leave it out"
        ]
