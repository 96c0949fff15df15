"""Make a dataset folder of token files that other programs wrote: checked, copied, hashed, with a manifest.

The files are copied, not linked: the folder then depends on nobody's files, and documents, types and ends of documents
are those of every other dataset folder. Texts are decoded, for their number of bytes and their digests.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from gptdist.data.indexed import IndexedFile
from gptdist.data.manifest import DatasetManifest, ShardEntry, SplitManifest, is_safe_name
from gptdist.data.provenance import Provenance, ProvenanceWriter
from gptdist.data.shards import ShardWriter, token_dtype
from gptdist.data.sources import TRAIN_SPLIT, VALIDATION_SPLIT
from gptdist.durable import partial_path, swap_in
from gptdist.errors import DataError, DataProblemsError
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer

TOKENIZER_DIR = "tokenizer"
_BATCH_TOKENS = 1 << 20
_COMPARED_DOCUMENTS = 64
_LONGEST_COMPARED = 4096
"""Tokens of a document that is encoded again: a sample need not be long."""


@dataclass(frozen=True)
class AdoptOptions:
    """What to make of the files."""

    name: str
    """Folder below the output that becomes the dataset."""

    validation: tuple[Path, ...] = ()
    """Prefixes of files whose documents are the validation split."""

    split: tuple[float, ...] | None = None
    """Shares of each file's documents, in their order: train, validation, and the rest, which is left out."""

    add_ends: bool = False
    """Append end-of-document where a document has none."""

    eod_token: str | None = None
    """The token that ends a document, where the tokenizer's files do not say it."""

    shard_tokens: int = 100_000_000
    """Begin a new shard before the document that would bring one above this size."""

    workers: int = 1
    """Processes."""


@dataclass(frozen=True)
class Adopted:
    """What was written."""

    manifest: DatasetManifest
    empty: int
    """Documents without a token, which were left out."""

    left_out: int
    """Documents behind the train and validation shares of ``split``."""

    ends_added: int


@dataclass(frozen=True)
class _Task:
    """One shard to write: documents ``begin`` … ``end`` - 1 of a file."""

    shard: str
    split: str
    prefix: Path
    begin: int
    end: int


@dataclass(frozen=True)
class _Written:
    """One shard that was written; ``entry`` is None where all of its documents were empty."""

    split: str
    entry: ShardEntry | None
    text_bytes: int
    empty: int
    ends_added: int


@dataclass
class _Plan:
    tasks: list[_Task] = field(default_factory=list)
    left_out: int = 0

    def add(self, split: str, prefix: Path, documents: Iterator[tuple[int, int]]) -> None:
        for begin, end in documents:
            number = sum(task.split == split for task in self.tasks)
            self.tasks.append(_Task(f"{split}-{number:05d}", split, prefix, begin, end))


def adopt(prefixes: Sequence[Path], tokenizer_path: Path, output: Path, options: AdoptOptions) -> Adopted:
    """Write ``output/<name>`` and ``output/tokenizer``.

    Args:
        prefixes: paths without ``.bin`` and ``.idx``; together they are one source.
        tokenizer_path: what ``load_tokenizer`` takes; the one that the files were made with.
        output: folder; other sources of the same tokenizer may be in it.
        options: how.

    Raises:
        DataError: with every file that is damaged or does not fit the tokenizer; or there is such a dataset already.
        TokenizerError: the tokenizer cannot be loaded.
    """
    target = output / options.name
    _check_target(target, options.name)
    tokenizer = load_tokenizer(tokenizer_path, options.eod_token)
    _check_tokenizer_beside(output / TOKENIZER_DIR, tokenizer)
    files = _opened([*prefixes, *options.validation])
    _check_fit(files, tokenizer, add_ends=options.add_ends)
    plan = _plan(files[: len(prefixes)], files[len(prefixes) :], options)
    if not (output / TOKENIZER_DIR).exists():
        tokenizer.save(output / TOKENIZER_DIR)
    building = partial_path(target)
    shutil.rmtree(building, ignore_errors=True)  # left by a kill
    building.mkdir(parents=True)
    try:
        written = _write_all(plan.tasks, building, output / TOKENIZER_DIR, options)
        manifest = _manifest(prefixes, written, tokenizer, options, plan.left_out)
        manifest.write(building)
        swap_in(building, target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    counts = sum(one.empty for one in written), sum(one.ends_added for one in written)
    return Adopted(manifest, empty=counts[0], left_out=plan.left_out, ends_added=counts[1])


def _check_target(target: Path, name: str) -> None:
    if not is_safe_name(name) or name == TOKENIZER_DIR:
        raise DataError(
            f"--name: '{name}' cannot be a folder here; use letters, digits, '.', '_', '-', not '{TOKENIZER_DIR}'"
        )
    if target.exists():
        raise DataError(f"{target}: exists; remove it, or choose another --name")


def _check_tokenizer_beside(folder: Path, tokenizer: Tokenizer) -> None:
    if folder.exists() and (found := load_tokenizer(folder).fingerprint) != tokenizer.fingerprint:
        raise DataError(
            f"{folder}: holds tokenizer {found[:12]}, --tokenizer is {tokenizer.fingerprint[:12]}; choose another "
            "--output for data of another tokenizer"
        )


def _opened(prefixes: Sequence[Path]) -> list[IndexedFile]:
    files: list[IndexedFile] = []
    problems: list[str] = []
    for prefix in prefixes:
        try:
            files.append(IndexedFile(prefix))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataProblemsError(problems)
    return files


def _check_fit(files: Sequence[IndexedFile], tokenizer: Tokenizer, *, add_ends: bool) -> None:
    problems = [
        problem
        for file in files
        for problem in (_end_problem(file, tokenizer, add_ends=add_ends), _id_problem(file, tokenizer))
        if problem is not None
    ]
    if not problems:
        problems = [problem for file in files if (problem := _text_problem(file, tokenizer)) is not None]
    if problems:
        raise DataProblemsError(problems)


def _ranges(file: IndexedFile) -> Iterator[tuple[int, int]]:
    return file.cuts(0, file.num_documents, _BATCH_TOKENS)


def _end_problem(file: IndexedFile, tokenizer: Tokenizer, *, add_ends: bool) -> str | None:
    if add_ends:
        return None
    ends = [file.last_tokens(begin, end) for begin, end in _ranges(file)]
    count = sum(one.size for one in ends)
    without = sum(int(np.count_nonzero(one != tokenizer.eod_id)) for one in ends)
    if not without:
        return None
    return (
        f"{file.bin_path}: {without} of {count} documents do not end with id {tokenizer.eod_id} "
        f"('{tokenizer.eod_token}'); name another --eod-token, or let --add-ends append it"
    )


def _id_problem(file: IndexedFile, tokenizer: Tokenizer) -> str | None:
    for begin, end in _ranges(file):
        tokens, _ = file.read(begin, end)
        wrong = np.flatnonzero((tokens < 0) | (tokens >= tokenizer.vocab_size))
        if wrong.size:
            place = int(file.document_offsets[begin]) + int(wrong[0])
            return (
                f"{file.bin_path}: id {int(tokens[wrong[0]])} at token {place}, the tokenizer has "
                f"{tokenizer.vocab_size} ids; name the tokenizer that the file was made with"
            )
    return None


def _text_problem(file: IndexedFile, tokenizer: Tokenizer) -> str | None:
    """Return why the ids cannot be this tokenizer's: none of some texts gives the ids again that it was decoded from.

    A text may well give others (normalisation, text that spells a special token), but hardly every one.
    """
    equal, looked_at = 0, 0
    for document in range(min(file.num_documents, _COMPARED_DOCUMENTS)):
        tokens, _ = file.read(document, document + 1)
        tokens = tokens[tokens != tokenizer.eod_id]
        if 0 < tokens.size <= _LONGEST_COMPARED:
            again = tokenizer.encode_batch([tokenizer.decode(tokens.tolist())])[0]
            equal += np.array_equal(again, tokens)
            looked_at += 1
    if equal or not looked_at:
        return None
    return (
        f"{file.bin_path}: of {looked_at} documents that were decoded and encoded again, none gave the same ids; name "
        "the tokenizer that the file was made with"
    )


def _plan(train: Sequence[IndexedFile], validation: Sequence[IndexedFile], options: AdoptOptions) -> _Plan:
    plan = _Plan()
    for file in train:
        first, second = split_borders(options.split, file.num_documents)
        plan.add(TRAIN_SPLIT, file.prefix, file.cuts(0, first, options.shard_tokens))
        plan.add(VALIDATION_SPLIT, file.prefix, file.cuts(first, second, options.shard_tokens))
        plan.left_out += file.num_documents - second
    for file in validation:
        plan.add(VALIDATION_SPLIT, file.prefix, file.cuts(0, file.num_documents, options.shard_tokens))
    return plan


def split_borders(split: Sequence[float] | None, documents: int) -> tuple[int, int]:
    """Return where the documents of training and of validation end, as Megatron-LM's ``--split`` cuts them.

    **Source**: ``megatron.core.datasets.blended_megatron_dataset_builder``: sums of the shares, rounded.
    """
    if split is None:
        return documents, documents
    shares = np.asarray([*split, 0.0, 0.0][:3]) / sum(split)
    first, second = float(shares[0]), float(shares[0]) + float(shares[1])
    return round(first * documents), round(min(second, 1.0) * documents)


def _write_all(tasks: Sequence[_Task], folder: Path, tokenizer: Path, options: AdoptOptions) -> list[_Written]:
    write = partial(_write, folder=folder, tokenizer_path=tokenizer, add_ends=options.add_ends)
    if options.workers == 1 or len(tasks) < 2:
        return [write(task) for task in tasks]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("forkserver")) as pool:
        return list(pool.map(write, tasks))


def _write(task: _Task, *, folder: Path, tokenizer_path: Path, add_ends: bool) -> _Written:
    """Write one shard and the file that says where its documents came from."""
    tokenizer, file = load_tokenizer(tokenizer_path), IndexedFile(task.prefix)
    text_bytes = empty = added = 0
    provenance = ProvenanceWriter(folder, task.shard)
    with ShardWriter(folder, task.shard, token_dtype(tokenizer.vocab_size)) as writer:
        for begin, end in file.cuts(task.begin, task.end, _BATCH_TOKENS):
            tokens, lengths = file.read(begin, end)
            numbers = begin + np.flatnonzero(lengths)
            empty += int(lengths.size - numbers.size)
            documents = np.split(tokens, np.cumsum(lengths[lengths > 0])[:-1]) if numbers.size else []
            if add_ends:
                open_ones = [ids[-1] != tokenizer.eod_id for ids in documents]
                added += sum(open_ones)
                documents = [
                    np.append(ids, tokenizer.eod_id) if is_open else ids
                    for ids, is_open in zip(documents, open_ones, strict=True)
                ]
            if not documents:
                continue
            rows = [
                _row(task.prefix, int(number), ids, tokenizer) for number, ids in zip(numbers, documents, strict=True)
            ]
            writer.append(np.concatenate(documents), np.array([ids.size for ids in documents]))
            provenance.append_rows(rows)
            text_bytes += sum(row.text_bytes for row in rows)
        if not writer.num_documents:
            provenance.discard()
            return _Written(task.split, None, 0, empty, 0)
        written = writer.close()
    entry = ShardEntry(name=task.shard, provenance_sha256=provenance.close(), **vars(written))
    return _Written(task.split, entry, text_bytes, empty, added)


def _row(prefix: Path, number: int, ids: np.ndarray, tokenizer: Tokenizer) -> Provenance:
    text = tokenizer.decode(ids.tolist()).encode()
    digest = hashlib.blake2b(text, digest_size=16).hexdigest()
    return Provenance(str(prefix), number, None, len(text), int(ids.size), digest)


def _manifest(
    prefixes: Sequence[Path], written: Sequence[_Written], tokenizer: Tokenizer, options: AdoptOptions, left_out: int
) -> DatasetManifest:
    splits = {}
    for name in (TRAIN_SPLIT, VALIDATION_SPLIT):
        some = [one for one in written if one.split == name and one.entry is not None]
        entries = tuple(one.entry for one in some if one.entry is not None)
        if entries:
            splits[name] = SplitManifest(
                documents=sum(entry.documents for entry in entries),
                tokens=sum(entry.tokens for entry in entries),
                text_bytes=sum(one.text_bytes for one in some),
                shards=entries,
            )
    if not splits:
        raise DataError(f"{prefixes[0]}.bin: every document is empty, or left out by --split; nothing to adopt")
    kept = sum(split.documents for split in splits.values())
    empty = sum(one.empty for one in written)
    content = sorted((entry.name, entry.bin_sha256) for split in splits.values() for entry in split.shards)
    return DatasetManifest(
        name=options.name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        dtype=token_dtype(tokenizer.vocab_size).name,
        splits=splits,
        weight=1.0,
        funnel={
            "adopt": {
                "documents_in": kept + empty + left_out,
                "documents_out": kept,
                "dropped": {name: count for name, count in (("empty", empty), ("split", left_out)) if count},
            }
        },
        config={
            "adopted": [str(prefix) for prefix in prefixes],
            "validation": [str(prefix) for prefix in options.validation],
            "split": None if options.split is None else list(options.split),
            "add_ends": options.add_ends,
        },
        recipe=hashlib.sha256(f"adopted: {tokenizer.fingerprint} {content}".encode()).hexdigest(),
    )
