"""How a checkpoint comes into being on the disk: every rank its own file, the manifest last, then one rename."""

import contextlib
import dataclasses
import json
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gptdist.checkpoint.find import LATEST_NAME, step_folder_name
from gptdist.checkpoint.identity import RunIdentity
from gptdist.checkpoint.manifest import (
    FORMAT,
    VERSION,
    FileEntry,
    FragmentEntry,
    Manifest,
    Progress,
    RankRecord,
    SavedLayout,
    TensorEntry,
    WholeStateEntry,
)
from gptdist.checkpoint.rank_part import RankPart
from gptdist.checkpoint.seals import UNPROTECTED, Protection, write_manifest
from gptdist.checkpoint.tensor_file import write_stream
from gptdist.durable import swap_in, sync_folder, write_whole
from gptdist.mesh.layout import Layout
from gptdist.telemetry.fence import check_current

PARTIAL_PREFIX = ".partial-"
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class UnfinishedCheckpoint:
    """A checkpoint that is being written.

    Until the last rename the folder has another name, so that a kill at any instant leaves either the whole checkpoint
    or none. It has to be on a file system that all ranks see. No method is a collective; each raises OSError where the
    disk refuses. Ranks of a launch that was given up raise TrainingError instead of touching what others write.
    """

    checkpoints: Path
    progress: Progress
    attempt: str
    """The same on all ranks, and in no other process's life: a rank that outlived its job writes to another folder."""

    protection: Protection = UNPROTECTED

    @property
    def final(self) -> Path:
        """The folder's name once it is whole."""
        return self.checkpoints / step_folder_name(self.progress.step)

    @property
    def folder(self) -> Path:
        """The folder's name until then."""
        return self.checkpoints / f"{PARTIAL_PREFIX}{self.final.name}-{self.attempt}"

    def begin(self) -> None:
        """Make the folder; what killed saves have left beside it goes. Rank 0 does this before the others write."""
        check_current()  # what lies there may be the newer launch's
        if not self.checkpoints.exists():
            self.checkpoints.mkdir(parents=True)
            sync_folder(self.checkpoints.parent)
        for left_over in self.checkpoints.glob(f"{PARTIAL_PREFIX}*"):
            shutil.rmtree(left_over)
        self.folder.mkdir()

    def write(self, part: RankPart, copied: Mapping[str, Tensor] | None, rank: int) -> None:
        """Write what ``rank`` answers for, and then a small record of it; both are on the disk when this returns.

        Args:
            part: what to write.
            copied: its values, if they were copied; else training waits.
            rank: whose they are.
        """
        with contextlib.closing(part.values()) as held:  # where the disk refuses, nothing may stay swapped in
            values = _in_order(part.sizes, held if copied is None else copied.items())
            file = write_stream(self.folder / part.file_name, part.sizes, values, self.protection.sealing_key)
        record = RankRecord(file=file, tensors=part.tensors, fragments=part.fragments, whole_states=part.whole_states)
        write_whole(self._record_path(rank), json.dumps(record.tree()).encode())

    def wait_for_records(self, world_size: int, timeout_seconds: float, given_up: threading.Event) -> bool:
        """Return True once all ranks have written, or False where ``given_up`` says that one will not.

        Raises:
            TimeoutError: names a rank whose record has not come.
        """
        deadline = time.monotonic() + timeout_seconds
        for rank in range(world_size):
            while not self._record_path(rank).exists():
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"rank {rank} has written nothing that rank 0 sees within {timeout_seconds:g} s; "
                        f"{self.checkpoints} has to be on a file system that all ranks share"
                    )
                if given_up.wait(POLL_SECONDS):
                    return False
        return True

    def commit(self, identity: RunIdentity, layout: Layout) -> int:
        """Merge all records into the manifest and give the folder its name; return the bytes of all files."""
        tensors: dict[str, TensorEntry] = {}
        fragments: list[FragmentEntry] = []
        whole_states: list[WholeStateEntry] = []
        files: list[FileEntry] = []
        for rank in range(layout.world_size):
            path = self._record_path(rank)
            record = RankRecord.from_tree(json.loads(path.read_text()), origin=str(path))
            tensors.update({entry.name: entry for entry in record.tensors})
            fragments += record.fragments
            whole_states += record.whole_states
            files.append(record.file)
            path.unlink()
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            progress=self.progress,
            config=identity.config,
            tokenizer_fingerprint=identity.tokenizer_fingerprint,
            data_fingerprints=identity.data_fingerprints,
            teacher_fingerprint=identity.teacher_fingerprint,
            layout=SavedLayout(
                world_size=layout.world_size, zero_stage=identity.zero_stage, **dataclasses.asdict(layout)
            ),
            encryption=self.protection.encryption(),
            tensors=tuple(tensors.values()),
            fragments=tuple(fragments),
            whole_states=tuple(whole_states),
            files=tuple(files),
        )
        write_manifest(self.folder, manifest, self.protection)
        check_current()
        swap_in(self.folder, self.final)  # a damaged checkpoint of the same step gives way
        write_whole(self.checkpoints / LATEST_NAME, self.final.name.encode())
        return sum(file.num_bytes for file in files)

    def discard(self) -> None:
        """Remove what has been written of it, so that its space is free at once."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record_path(self, rank: int) -> Path:
        return self.folder / f"rank_{rank:05d}.json"


def _in_order(sizes: Mapping[str, int], values: Iterable[tuple[str, Tensor]]) -> Iterator[Tensor]:
    for expected, (key, tensor) in zip(sizes, values, strict=True):
        assert key == expected, f"{key} comes where the header says {expected}"
        yield tensor
