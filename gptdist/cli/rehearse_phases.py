"""The phases of ``gptdist rehearse``: the commands a user would type, on the small run, and what came of them."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gptdist.checkpoint.find import step_folders, step_of
from gptdist.checkpoint.keys import KEY_VARIABLE, TrustedKey
from gptdist.checkpoint.verify import verify
from gptdist.cli.rehearse_materials import Rehearsal
from gptdist.config.exportable import export_problems
from gptdist.config.other_layout import other_layout
from gptdist.data.attempts import START
from gptdist.device.parent_death import die_with_parent
from gptdist.telemetry.heartbeat import STARTING
from gptdist.telemetry.ledger import LEDGER_NAME, SAVED, read_json_lines
from gptdist.telemetry.metrics import METRICS_NAME
from gptdist.telemetry.rank_log import Failure
from launch.job import LOGS_NAME
from launch.outcome import joined, read_outcomes

FIRST_LOSS_MARGIN = 1.0
"""How far the loss before the first update may be from that of a uniform guess, ln(vocabulary), in nats a token. Of
small weights it is within some hundredths; of logits with a standard deviation of 1 it is half a nat above."""

PHASE_OF: dict[str, str] = {
    "evaluation": "validation",
    "checkpoint": "save",
    "finish": "save",
    **dict.fromkeys(map(str, STARTING), "launch"),
}
"""In which phase of a rehearsal a rank is, by what its heartbeat says; in the others it trains."""

Status = Literal["ok", "FAILED", "none"]


@dataclass(frozen=True)
class Phase:
    """One phase, and how it went."""

    name: str
    status: Status
    seconds: float
    text: str
    """What was found, or what failed, in one line."""

    details: str = ""
    """Of a failure: all that the first rank has said of it."""

    def line(self) -> str:
        """Return it as a line of a table."""
        return f"{self.name:<11} {self.status:<7} {self.seconds:6.1f} s  {self.text}"

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"name": self.name, "status": self.status, "seconds": round(self.seconds, 3), "text": self.text}


def phases(rehearsal: Rehearsal) -> Iterator[Phase]:
    """Go through all phases, and yield each as it is done; those that need one that failed are not begun."""
    yield Phase("config", "ok", 0.0, f"legal on {rehearsal.world_size} ranks, and small on {rehearsal.small.ranks}")
    yield Phase("data", "ok", rehearsal.data_seconds, rehearsal.data)
    trained = True
    for phase in _training(rehearsal):
        trained = trained and phase.status == "ok"
        yield phase
    if not trained:
        return
    yield _verified(rehearsal)
    yield _replayed(rehearsal, "resume", [])
    other = other_layout(rehearsal.small.config)
    if other is None:
        yield Phase("reshard", "none", 0.0, "no other layout is legal for so small a run; --ranks 2 has one")
    else:
        yield _replayed(rehearsal, "reshard", other)
    yield _exported(rehearsal)


@dataclass(frozen=True)
class _Done:
    """A command that has ended."""

    status: int
    seconds: float
    output: str
    errors: str

    def last_error(self) -> str:
        """Return the first line that says what is wrong, else the last one."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        told = [line for line in lines if ": error: " in line]
        return (told or lines[-1:] or ["no word"])[0]


def _gptdist(rehearsal: Rehearsal, name: str, *words: str) -> _Done:
    """Run a ``gptdist`` command, and keep what it says in ``<name>.txt``."""
    # Everything is on this machine, and nothing of it is taken that others may use.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop(KEY_VARIABLE, None)  # the small run has a key of its own
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "gptdist.cli.main", *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        preexec_fn=partial(die_with_parent, os.getpid()),
    )
    path = rehearsal.materials.folder / f"{name}.txt"
    path.write_text(f"$ gptdist {' '.join(words)}\n{done.stdout}{done.stderr}", encoding="utf-8")
    return _Done(done.returncode, time.perf_counter() - begin, done.stdout, done.stderr)


def _training(rehearsal: Rehearsal) -> Iterator[Phase]:
    """Train the small run, and yield how each phase went, up to the first that failed."""
    begin = time.time()
    done = _gptdist(rehearsal, "launch", "launch", "local", str(rehearsal.config_path))
    yield from _trained(rehearsal, done, begin)


def _trained(rehearsal: Rehearsal, done: _Done, begin: float) -> Iterator[Phase]:
    """Yield what the records of a launch that began at ``begin``, in seconds since 1970, say of each phase."""
    failure = _first_failure(rehearsal.small.config.folder) if done.status else None
    reached = {
        "launch": _events(rehearsal, START),
        "step": _metrics(rehearsal, "train"),
        "validation": _metrics(rehearsal, "validation"),
        "save": _events(rehearsal, SAVED),
    }
    blamed = None if failure is None else PHASE_OF.get(failure.phase, "step")
    for name, look in {"launch": _ranks_met, "step": _stepped, "validation": _validated, "save": _saved}.items():
        if done.status and (name == blamed or not reached[name] or name == "save"):
            text = done.last_error() if failure is None else f"{failure.heading()}: {_last_line(failure.text)}"
            yield Phase(name, "FAILED", done.seconds, text, done.errors if failure is None else failure.text)
            return
        phase = look(rehearsal, begin)
        yield phase
        if phase.status != "ok":
            return


def _first_failure(run: Path) -> Failure | None:
    """Return what the ranks of the one launch have left."""
    for folder in sorted((run / LOGS_NAME).glob("launch_*")):
        outcomes = read_outcomes(folder)
        if outcomes:
            return joined(list(outcomes.values())).first_failure
    return None


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "no word"


def _events(rehearsal: Rehearsal, event: str) -> list[dict[str, Any]]:
    records = read_json_lines(rehearsal.small.config.folder / LEDGER_NAME)
    return [record for record in records if record.get("event") == event]


def _metrics(rehearsal: Rehearsal, kind: str) -> list[dict[str, Any]]:
    records = read_json_lines(rehearsal.small.config.folder / METRICS_NAME)
    return [record for record in records if record["kind"] == kind]


def _ranks_met(rehearsal: Rehearsal, begin: float) -> Phase:
    (start,) = _events(rehearsal, START)
    return Phase("launch", "ok", start["time"] - begin, f"groups and model of {start['layout']}")


def _stepped(rehearsal: Rehearsal, _: float) -> Phase:
    """Look whether every step was taken, with the loss at the beginning that an untrained model has."""
    config, rows = rehearsal.small.config, _metrics(rehearsal, "train")
    seconds = sum(row["step_seconds"] for row in rows)
    guess = math.log(config.model.vocab_size)
    first, last = rows[0]["loss"], rows[-1]
    skipped = [row["step"] for row in rows if row["skipped"]]
    if skipped:
        text = f"the guards refused steps {skipped}: loss or gradient norm is not finite, or a spike"
    elif abs(first - guess) > FIRST_LOSS_MARGIN:
        text = f"first loss {first:.4f}, of an untrained model it is near ln({config.model.vocab_size}) = {guess:.4f}"
    else:
        text = f"{last['step']} of {config.training.train_steps}; first loss {first:.4f}, ln(vocabulary) {guess:.4f}"
        return Phase("step", "ok", seconds, f"{text}, last {last['loss']:.4f}")
    return Phase("step", "FAILED", seconds, f"{text}; see model.init, model.init_std and training.precision")


def _validated(rehearsal: Rehearsal, _: float) -> Phase:
    rows, data = _metrics(rehearsal, "validation"), rehearsal.small.config.data
    spent = sum(row.get("evaluation_seconds") or 0.0 for row in _metrics(rehearsal, "train"))
    names = [*(source.name for source in data.sources), *(one.name for one in data.validation)]
    wrong = [name for name in names if not math.isfinite(rows[-1].get(f"loss_{name}", math.nan))]
    if wrong:
        return Phase("validation", "FAILED", spent, f"no finite loss of {', '.join(wrong)}")
    return Phase("validation", "ok", spent, f"loss {rows[-1]['validation_loss']:.4f}; {', '.join(names)}")


def _saved(rehearsal: Rehearsal, _: float) -> Phase:
    events = _events(rehearsal, SAVED)
    seconds = sum(event["stall_seconds"] + event["write_seconds"] for event in events)
    folders = step_folders(rehearsal.small.config.checkpoints_folder)
    if len(folders) < 2:
        return Phase("save", "FAILED", seconds, f"{len(folders)} checkpoints are there; see checkpoints.keep")
    steps = ", ".join(str(step_of(folder)) for folder in reversed(folders))
    return Phase("save", "ok", seconds, f"checkpoints of steps {steps}, {events[-1]['bytes']:,} bytes each")


def _verified(rehearsal: Rehearsal) -> Phase:
    begin, config = time.perf_counter(), rehearsal.small.config
    path = config.checkpoints.protection.trusted_key_path
    trusted = None if path is None else TrustedKey.read(Path(path))
    folders = step_folders(config.checkpoints_folder)
    copies = [] if config.checkpoints.remote is None else step_folders(rehearsal.materials.store / config.name)
    problems = [problem for folder in (*folders, *copies) for problem in verify(folder, trusted)]
    if config.checkpoints.remote is not None and [copy.name for copy in copies[:1]] != [folders[0].name]:
        problems.append(f"{rehearsal.materials.store}: has no copy of {folders[0].name}; see the log in launch.txt")
    seconds = time.perf_counter() - begin
    if problems:
        return Phase("verify", "FAILED", seconds, problems[0], "\n".join(problems))
    found = f"{len(folders)} checkpoints" + (f" and {len(copies)} copies" if copies else "")
    seals = (" and signature" if trusted else "") + (", encrypted" if config.checkpoints.protection.encrypt else "")
    return Phase("verify", "ok", seconds, f"every file of {found} has its hash{seals}")


def _replayed(rehearsal: Rehearsal, name: str, overrides: list[str]) -> Phase:
    """Have the steps between the checkpoints done once more from the first, and compared."""
    done = _gptdist(rehearsal, name, "resume-check", str(rehearsal.small.config.folder), *overrides)
    how = " ".join(overrides) or "the same layout"
    if done.status or not done.output.strip():
        failure = done.last_error() if not done.output.strip() else _last_line(done.output)
        return Phase(name, "FAILED", done.seconds, f"{how}: {failure}", done.output + done.errors)
    return Phase(name, "ok", done.seconds, f"{how}: {_last_line(done.output).removeprefix('PASS').strip()}")


def _exported(rehearsal: Rehearsal) -> Phase:
    problems = export_problems(rehearsal.real.model)
    if problems:
        return Phase("export", "none", 0.0, "; ".join(problems))
    run, output = str(rehearsal.small.config.folder), str(rehearsal.materials.folder / "export")
    done = _gptdist(rehearsal, "export", "export", run, "--to", "hf", "--output", output)
    if done.status:
        return Phase("export", "FAILED", done.seconds, done.last_error(), done.errors)
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.output.splitlines() if len(line.split()) > 1}
    return Phase("export", "ok", done.seconds, f"{told['model']}; {told['parity']}")
