"""``gptdist report RUN …``: one page of a run, or of several side by side."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptdist.report.gather import RunRecords

PAGE_NAME = "report.html"
DEFAULT_PORT = 8766


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders; several are compared")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: {PAGE_NAME} in the first run's folder")
    parser.add_argument("--verify", action="store_true", help="compare the hashes of checkpoints: reads all of them")
    parser.add_argument("--device", metavar="NAME", help="what a rank had, for the plan (default: cpu, if it was one)")
    parser.add_argument("--json", action="store_true", help="print what the page shows; writes no page")
    parser.add_argument("--watch", action="store_true", help="serve a page that follows the runs, on this machine")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="with --watch; 0 takes a free one (default: %(default)s)"
    )
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    import json

    from gptdist.report.gather import open_runs, report_data

    _check(arguments)
    runs = open_runs(arguments.runs, in_full=arguments.verify, device=arguments.device)
    if arguments.watch:
        _watch(runs, arguments.port)
    elif arguments.json:
        print(json.dumps(report_data(runs), allow_nan=False))
    else:
        _write(runs, arguments.output or arguments.runs[0] / PAGE_NAME)


def _check(arguments: argparse.Namespace) -> None:
    from gptdist.errors import ConfigError

    bad = []
    if not 0 <= arguments.port < 65536:
        bad.append(f"--port: must be from 0 to 65535, got {arguments.port}")
    given = [f"--{name}" for name in ("watch", "json") if getattr(arguments, name)]
    given += ["--output"] if arguments.output is not None else []
    if len(given) > 1:
        bad.append(f"{given[0]}: beside {', '.join(given[1:])}; use one of them")
    if arguments.output is not None and not arguments.output.parent.is_dir():
        bad.append(f"--output: folder '{arguments.output.parent}' does not exist; make it, or name another")
    if arguments.device is not None:
        from gptdist.plan.device import find_device

        find_device(arguments.device)
    if bad:
        raise ConfigError(bad)


def _write(runs: "list[RunRecords]", path: Path) -> None:
    from gptdist.durable import write_whole
    from gptdist.errors import ConfigError
    from gptdist.report.gather import report_data
    from gptdist.report.page import page, sizes

    data = report_data(runs)
    content = page(data).encode()
    try:
        write_whole(path, content)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written ({error}); name another file with --output"]) from None
    print(f"written  {path}: {sizes(data['runs'])}, {len(content):,} bytes")


def _watch(runs: "list[RunRecords]", port: int) -> None:
    from gptdist.report.watch import make_server

    server = make_server(runs, port)
    host, bound = server.server_address[:2]
    print(f"watching at http://{host!s}:{bound}/ until Ctrl-C", flush=True)
    with server:
        server.serve_forever()
