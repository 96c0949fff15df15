"""Look at every node of a job before anything is started there."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from gptdist.checkpoint.find import step_folders
from gptdist.config.run import RunConfig
from gptdist.telemetry.software import code_digest, versions
from launch.preflight.code import config_digest
from launch.preflight.disk import room_problem
from launch.preflight.judge import Expected, judge
from launch.preflight.link_check import check_links
from launch.preflight.probe import python_version
from launch.preflight.reach import Reach, Reply
from launch.preflight.request import VERSIONED, Request, answer_path, nonce_path, own_files, wanted_interfaces
from launch.preflight.verdict import CHECKS, Problem, Verdict

PROBE = "launch.preflight.probe"
PROBE_SECONDS = 60.0
"""After which a node that has not answered is one that does not."""


def check_nodes(
    hosts: Sequence[str],
    reach: Reach,
    *,
    port: int,
    config: RunConfig | None = None,
    config_path: Path | None = None,
    links: bool = False,
) -> Verdict:
    """Return what is wrong with which host.

    Args:
        hosts: names by which they reach each other; the first is the head.
        reach: a way to them.
        port: where the ranks are to meet, on the head.
        config: of the run; without, nothing of it is checked.
        config_path: file it was read from, as the ranks will be given it.
        links: measure what pairs of hosts get through to each other, which takes seconds and imports torch there.
    """
    run_folder = None if config is None else config.folder.absolute()
    request = Request(
        hosts=tuple(hosts),
        port=port,
        run_folder=None if run_folder is None else str(run_folder),
        config_path=None if config_path is None else str(config_path),
        interfaces=wanted_interfaces(),
    )
    expected = Expected(
        code=code_digest(),
        config=None if config_path is None else config_digest(config_path),
        versions=versions(VERSIONED),
        python=python_version(),
        ranks_per_node=1 if config is None else config.launch.ranks_per_node,
        device="auto" if config is None else config.training.device,
    )
    problems: list[Problem] = []
    replies: list[Reply] = []
    seen: list[str] = []
    with ExitStack() as stack:
        if run_folder is not None:
            problems += _show_folder(run_folder, request, stack)
        replies = reach.ask(PROBE, hosts, request.to_json(), timeout_seconds=PROBE_SECONDS)
        if run_folder is not None:
            seen = [host for host in hosts if _shows(answer_path(run_folder, request.nonce, host), host)]
    found = judge(replies, request, expected, seen)
    problems += found.problems
    if config is not None:
        problems += _room(config, replies)
    verdict = Verdict(tuple(hosts), _checks(request, links=links), tuple(problems), found.shown)
    return check_links(verdict, reach, port=port, device=expected.device) if links else verdict


def _checks(request: Request, *, links: bool) -> tuple[str, ...]:
    """Return the checks that are made of these hosts."""
    left_out = {
        "config": request.config_path is None,
        "folder": request.run_folder is None,
        "ranks": request.run_folder is None,
        "names": len(request.hosts) == 1,
        "link": not links or len(request.hosts) == 1,
    }
    return tuple(check for check in CHECKS if not left_out.get(check, False))


def _show_folder(folder: Path, request: Request, stack: ExitStack) -> list[Problem]:
    """Write the file by which nodes know the run's folder; on leaving ``stack`` it is as it was."""
    try:
        for parent in reversed([folder, *folder.parents]):
            if not parent.exists():
                parent.mkdir()
                stack.callback(_remove_if_empty, parent)
        stack.callback(_remove_files, folder, request)
        nonce_path(folder, request.nonce).write_text(request.nonce)
    except OSError as error:
        return [Problem("folder", f"{folder} cannot be written here ({error.strerror}); mend its permissions or mount")]
    return []


def _remove_files(folder: Path, request: Request) -> None:
    for path in own_files(folder, request.nonce, request.hosts):
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # a run has begun there meanwhile
        folder.rmdir()


def _shows(path: Path, content: str) -> bool:
    try:
        return path.read_text() == content
    except OSError:
        return False


def _room(config: RunConfig, replies: Sequence[Reply]) -> list[Problem]:
    """Return whether the file system has too little room, by the host that sees least of it."""
    free = [reply.facts["folder"]["free_bytes"] for reply in replies if reply.facts and reply.facts["folder"]]
    known = [count for count in free if count is not None]
    if not known:
        return []
    there = len(step_folders(config.checkpoints_folder))
    problem = room_problem(config, there=there, free_bytes=min(known))
    return [] if problem is None else [Problem("folder", problem)]
