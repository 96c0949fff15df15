"""torchrun, with its failures in a file instead of a page of text on the console: ``python -m launch.torchrun …``.

Its arguments are torchrun's own. Which rank failed first, and by which signal, torchrun alone knows.
"""

import json
import logging
import os
import sys
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from gptdist.device.parent_death import die_with_parent
from gptdist.durable import write_whole
from gptdist.errors import EXIT_FAILED
from gptdist.telemetry.heartbeat import node_name
from gptdist.telemetry.rank_log import LOG_DIR

SIGNALLED = 128
"""Added to a signal's number for the exit status, as shells do."""


def main(arguments: list[str]) -> int:
    """Run the ranks that ``arguments`` name; return 0, 1 if one failed, or 128 + the signal that ended them."""
    folder = Path(os.environ[LOG_DIR])
    folder.mkdir(parents=True, exist_ok=True)
    name = f"torchrun_{node_name()}"
    _say_it_in(folder / f"{name}.log")
    try:
        run.run(run.parse_args(arguments))
    except ChildFailedError as error:
        failed = [
            {"rank": rank, "exit_code": failure.exitcode, "time": failure.timestamp}
            for rank, failure in error.failures.items()
        ]
        write_whole(folder / f"{name}.json", json.dumps(failed).encode())
        return EXIT_FAILED
    except SignalException as error:
        return SIGNALLED + int(error.sigval)
    return 0


def _say_it_in(path: Path) -> None:
    """Have torchrun's messages in a file; the agent says what matters of them."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, log in logging.Logger.manager.loggerDict.items():
        is_torchruns = name.startswith("torch.distributed.elastic") or name == "torch.distributed.run"
        if is_torchruns and isinstance(log, logging.Logger):
            log.handlers, log.propagate = [handler], False


if __name__ == "__main__":
    die_with_parent(os.getppid())
    sys.exit(main(sys.argv[1:]))
