"""What a checkpoint says of itself: which file holds which range of which tensor, and what run it belongs to.

A step folder holds ``manifest.json`` and one safetensors file a rank. Tensors are logical: no layout, no padding; each
is [outer, length, inner], cut along ``length`` into slices by the tensor parallelism it was saved with, and each slice,
flat, into fragments by ZeRO. See docs/checkpoint_format.md.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from gptdist.checkpoint.proof import ResumeProof
from gptdist.config.section import Section
from gptdist.errors import CheckpointError, ConfigError

FORMAT: Final = "gptdist-checkpoint"
VERSION = 1
MANIFEST_NAME = "manifest.json"

WEIGHT = "weight"
"""The state that every tensor has, the master weight; its others are the optimizer's moments."""


def plain_file_name(name: str) -> str:
    """Return ``name``, which must not lead out of its folder."""
    if not name or PurePosixPath(name).name != name or name in {".", ".."} or "\\" in name or "\0" in name:
        raise ValueError(f"file name '{name}' leads out of the folder; the manifest was tampered with")
    return name


FileName = Annotated[str, AfterValidator(plain_file_name)]
"""Name of a file beside the manifest."""


class TensorEntry(Section):
    """One logical tensor."""

    name: str
    shape: tuple[int, ...]
    outer: int
    length: int
    inner: int
    num_slices: int
    """Into how many slices ``length`` was cut."""

    slice_length: int
    """Length of each slice; the last ones may reach beyond ``length``, where there was padding."""

    states: tuple[str, ...]
    """What is stored of every value, each in fp32: the master weight, and the moments its optimizer keeps."""


class WholeStateEntry(Section):
    """What the optimizer keeps of a whole tensor and not of each value, held by one file as ``<state>/<tensor>``."""

    tensor: str
    state: str
    shape: tuple[int, ...]
    """Of what is kept, not of the tensor."""

    file: FileName


class FragmentEntry(Section):
    """A range of one slice, held by one file under the keys ``<state>/<tensor>``."""

    tensor: str
    slice_index: int
    start: int
    """First value, counted in the flat slice [outer, slice_length, inner]."""

    numel: int
    file: FileName


class FileEntry(Section):
    """One file and how to tell that it is whole."""

    name: FileName
    num_bytes: int
    sha256: str


class SourceRecord(Section):
    """Where weights were taken from."""

    path: str
    """As the user named it."""

    files: tuple[FileEntry, ...]
    """What identifies it: a checkpoint's manifest, which holds the hashes of the rest, or every file that was read."""

    step: int | None = None
    """Optimizer steps that it had done, where it says so."""

    share: float = 1.0
    """What its weights are multiplied by; the shares of an average add up to 1."""


class Origin(Section):
    """What a checkpoint was made of that no run saved. It holds weights alone: no moments."""

    kind: Literal["average", "huggingface", "deepspeed", "pruned"]
    sources: tuple[SourceRecord, ...]
    facts: dict[str, str] = Field(default_factory=dict)
    """How it was made, such as by which method, for people."""


class RankRecord(Section):
    """What one rank wrote; merged into the manifest."""

    file: FileEntry
    tensors: tuple[TensorEntry, ...]
    fragments: tuple[FragmentEntry, ...]
    whole_states: tuple[WholeStateEntry, ...]


class Encryption(Section):
    """How the files beside the manifest are encrypted."""

    cipher: str
    key_fingerprint: str
    """Which key it was, without giving it away."""


class SavedLayout(Section):
    """How the run was spread when it saved; for people, not needed to load."""

    world_size: int
    tensor_parallel_size: int
    context_parallel_size: int
    data_parallel_size: int
    pipeline_parallel_size: int
    expert_parallel_size: int
    zero_stage: int


class LowestLoss(Section):
    """The lowest validation loss so far, and how long ago that was."""

    windows: str
    """What the windows are known by that it was measured on."""

    loss: float | None
    """Nats a token; none if no loss was finite."""

    step: int | None
    evaluations_since: int = 0
    """Evaluations after it, none of which was lower."""


class LossScale(Section):
    """Where fp16's loss scale stands."""

    scale: float
    """What the loss is multiplied by."""

    updates: int
    """Updates tried so far."""

    last_overflow: int
    """Which of them overflowed last; -1: none."""

    overflows_left: int
    """The how-manieth overflow from here halves the scale."""


class GuardRecord(Section):
    """What the guards of a run remember, so that a resumed one refuses the same steps."""

    losses: tuple[float, ...] = ()
    """Of the last steps that were done, oldest first."""

    grad_norms: tuple[float, ...] = ()
    skipped_steps: tuple[int, ...] = ()
    """Skipped among the last steps."""

    rewinds: int = 0
    """How often the run went back to a checkpoint."""


class Progress(Section):
    """How far the run was, and on what."""

    step: int
    consumed_samples: int
    consumed_tokens: int
    optimizer_step: int
    """Updates that the moments have seen; 0 where the optimizer does not count them."""

    loss_scale: LossScale | None = None
    """Of a run in fp16."""

    loss: float | None = None
    """Training loss of the last step that was not skipped, nats a token."""

    validation_loss: float | None = None
    """Newest validation loss, nats a token."""

    validation_step: int | None = None
    """The step it was measured after."""

    lowest: LowestLoss | None = None
    """Of the evaluations so far."""

    guards: GuardRecord = GuardRecord()

    initial_weights: SourceRecord | None = None
    """The checkpoint that the run's first weights are of; none: they were drawn from the seed."""

    proof: ResumeProof | None = None
    """Of a checkpoint that a run saved: what a resume must find again."""

    zeros: dict[str, int] = Field(default_factory=dict)
    """How many weights of a pruned matrix are zero, by its name, where they are to stay so."""


class Manifest(Section):
    """Everything about one checkpoint but the numbers themselves."""

    format: Literal["gptdist-checkpoint"]
    version: int
    progress: Progress
    config: dict[str, Any]
    """The resolved config of the run that saved it."""

    tokenizer_fingerprint: str
    data_fingerprints: dict[str, str]
    """Content of each data source; another content would be other samples."""

    teacher_fingerprint: str = ""
    """Of what the run learns from beside its data; nothing of a run without a teacher."""

    layout: SavedLayout
    encryption: Encryption | None = None
    """None: the files can be read by everybody."""

    tensors: tuple[TensorEntry, ...]
    fragments: tuple[FragmentEntry, ...]
    whole_states: tuple[WholeStateEntry, ...] = ()
    """None but of optimizers that keep such."""

    files: tuple[FileEntry, ...]
    origin: Origin | None = None
    """None of what a run saved."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.progress.step


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a step folder.

    Raises:
        CheckpointError: there is none, it is damaged, or of a version this code does not know.
    """
    path = folder / MANIFEST_NAME
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the folder is no whole checkpoint") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); restore it or use an older checkpoint") from None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is not a {FORMAT} manifest; name a checkpoint of this framework")
    if tree.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: format version {tree.get('version')} is unknown here (known: {VERSION}); update gptdist"
        )
    try:
        return Manifest.from_tree(tree, origin=str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error.problems[0]}; the manifest is damaged, use an older checkpoint") from None
