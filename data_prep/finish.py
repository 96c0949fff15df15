"""The result of a run put in its place: tokenizer, a folder for each source, the account; each whole or not at all.

Files are linked from the work folder, not moved: a run that is killed here does this part again from the start.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_prep.card.merge import merge_summaries
from data_prep.card.rows import rows_file_name
from data_prep.decontaminate.table import check_decontaminate
from data_prep.steps import account, documents
from data_prep.steps.plan import Identity, recorded_config
from data_prep.steps.shards import SHARDS, finished_packing, finished_splits, read_layout
from data_prep.steps.tokenize import NAME as TOKENIZE
from data_prep.steps.tokenizer import prepared_tokenizer, tokenizer_folder
from data_prep.work import MARKER_NAME, Work
from gptdist.config.prep import PrepConfig
from gptdist.data.dataset import TokenDataset
from gptdist.data.manifest import DatasetManifest
from gptdist.data.shards import token_dtype
from gptdist.durable import swap_in, write_whole
from gptdist.errors import DataError

ACCOUNT_DIR, TOKENIZER_DIR = "account", "tokenizer"
RUN_NAME, SUMMARY_NAME = "run.json", "summary.json"
_FINISHED_DIR = "finished"
_NAMED_SAMPLES = 20
_RECORDED_VERSIONS = ("gptdist", "resiliparse", "fastwarc", "gigatoken", "tokenizers", "pyarrow", "numpy", "numba")


def finished_run(config: PrepConfig, identity: Identity) -> tuple[DatasetManifest, ...] | None:
    """Return the manifests of a run that was finished from the same config and inputs, if all its files are there."""
    try:
        known = json.loads((config.output_dir / ACCOUNT_DIR / RUN_NAME).read_bytes())
        if known != vars(identity):
            return None
        manifests = tuple(DatasetManifest.read(config.output_dir / source.name) for source in config.sources)
        for source, manifest in zip(config.sources, manifests, strict=True):
            if manifest.recipe != identity.recipe:
                return None
            for split in manifest.splits:
                TokenDataset(config.output_dir / source.name, split)
    except (OSError, ValueError, DataError):
        return None  # missing or damaged: it is made again
    return manifests if (config.output_dir / TOKENIZER_DIR).is_dir() else None


def read_summary(output_dir: Path) -> dict[str, Any]:
    """Return the summary of a finished run.

    Raises:
        DataError: there is none.
    """
    path = output_dir / ACCOUNT_DIR / SUMMARY_NAME
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no summary of a finished run ({error}); run 'gptdist prep run' to its end") from None


def finish(work: Work, identity: Identity) -> tuple[DatasetManifest, ...]:
    """Put everything into the output folder: what says that the run is finished comes last."""
    output = work.config.output_dir
    building = work.folder / _FINISHED_DIR
    shutil.rmtree(building, ignore_errors=True)
    _link_files(tokenizer_folder(work), building / TOKENIZER_DIR)
    manifests = tuple(_build_source(work, index, building, identity) for index in range(len(work.config.sources)))
    _build_account(work, building / ACCOUNT_DIR, manifests, identity)
    for name in (TOKENIZER_DIR, *(source.name for source in work.config.sources), ACCOUNT_DIR):
        swap_in(building / name, output / name)
    return manifests


def _build_source(work: Work, index: int, building: Path, identity: Identity) -> DatasetManifest:
    section = work.config.sources[index]
    folder = building / section.name
    for rank, shard in enumerate(read_layout(work)):
        if shard.source == index:
            _link_files(work.task_folder(SHARDS, rank), folder)
    tokenizer = prepared_tokenizer(work)
    manifest = DatasetManifest(
        name=section.name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        dtype=token_dtype(tokenizer.vocab_size).name,
        splits=finished_splits(work, index),
        weight=section.weight,
        funnel=_source_summary(work, index)["passages"],
        config=recorded_config(work.config),
        recipe=identity.recipe,
        packing=finished_packing(work, index),
    )
    manifest.write(folder)
    return manifest


def _build_account(work: Work, folder: Path, manifests: tuple[DatasetManifest, ...], identity: Identity) -> None:
    folder.mkdir(parents=True)
    for rank, shard in enumerate(work.plan.shards):
        name = rows_file_name(work.config.sources[shard.source].name, rank)
        _link(work.task_folder(account.NAME, rank) / documents.ROWS_NAME, folder / name)
    sources = [
        {**_described(work, index), **_source_summary(work, index), "splits": _sizes(manifest)}
        for index, manifest in enumerate(manifests)
    ]
    tokenizer = prepared_tokenizer(work)
    summary = {
        "name": work.config.name,
        "seed": work.config.seed,
        "config": recorded_config(work.config),
        "sources": sources,
        "tokenizer": {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
            "engines": dict(sorted(Counter(_engines(work)).items())),
        },
        "evaluation": _evaluation(work),
        "near_clusters": work.marker("near_clusters", 0) if work.config.dedup.near else None,
        "packing": {manifest.name: manifest.packing for manifest in manifests} if work.config.packing else None,
        "versions": {name: version(name) for name in _RECORDED_VERSIONS},
    }
    write_whole(folder / SUMMARY_NAME, json.dumps(summary, ensure_ascii=False, indent=1).encode())
    write_whole(folder / RUN_NAME, json.dumps(vars(identity)).encode())


def _engines(work: Work) -> Iterator[str]:
    """Yield what encoded each input shard: a fallback is right, but slow, and no accident that should be missed."""
    return (str(work.marker(TOKENIZE, rank)["engine"]) for rank in range(work.num_shards))


def _evaluation(work: Work) -> list[dict[str, Any]] | None:
    """Return what of each evaluation set was looked for."""
    section = work.config.decontaminate
    if section is None:
        return None
    return [
        {**vars(file), "too_short": len(file.too_short), "first_too_short": file.too_short[:_NAMED_SAMPLES]}
        for file in check_decontaminate(section)
    ]


def _described(work: Work, index: int) -> dict[str, Any]:
    section = work.config.sources[index]
    tree = section.tree()
    ranks = _ranks(work, index)
    pieces = [piece for rank in ranks for piece in work.plan.shards[rank].pieces]
    return {
        "name": section.name,
        "kind": tree["kind"],
        "licence": section.licence,
        "paths": tree.get("paths") or [tree.get("dataset")],
        "weight": section.weight,
        "inputs": len({piece.path for piece in pieces}),
        "input_bytes": sum(piece.size for piece in pieces),
        "shards": ranks,
    }


def _source_summary(work: Work, index: int) -> dict[str, Any]:
    """Return the sum of the source's accounts, dedup as the last stage of each."""
    return merge_summaries([_shard_summary(work, rank) for rank in _ranks(work, index)])


def _shard_summary(work: Work, rank: int) -> Mapping[str, Any]:
    first, last = work.marker(documents.NAME, rank), work.marker(account.NAME, rank)
    summary = first["summary"]
    dedup = {
        "documents_in": first["documents"],
        "bytes_in": first["text_bytes"],
        "documents_out": first["documents"] - sum(last["dropped"].values()),
        "bytes_out": last["bytes_left"],
        "dropped": last["dropped"],
    }
    return {**summary, "passages": {**summary["passages"], "dedup": dedup}}


def _sizes(manifest: DatasetManifest) -> dict[str, dict[str, int]]:
    return {
        name: {
            "documents": split.documents,
            "tokens": split.tokens,
            "text_bytes": split.text_bytes,
            "shards": len(split.shards),
        }
        for name, split in manifest.splits.items()
    }


def _ranks(work: Work, index: int) -> list[int]:
    return [rank for rank, shard in enumerate(work.plan.shards) if shard.source == index]


def _link_files(source: Path, target: Path) -> None:
    """Give every file of a finished task a second name below ``target``."""
    for path in _files(source):
        _link(path, target / path.relative_to(source))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARKER_NAME)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)  # a file system without hard links
