"""The output folder of a run: one run at a time, unfinished work kept for the next attempt."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptdist.errors import DataError

LOCK_NAME = ".prep.lock"
WORK_NAME = ".prep-work"


@contextmanager
def work_folder(output_dir: Path) -> Iterator[Path]:
    """Lock ``output_dir`` and give the folder in it for unfinished work, as an earlier attempt left it.

    Raises:
        DataError: another run has the lock, or the folder cannot be written.
    """
    lock_path = output_dir / LOCK_NAME
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("w")
    except OSError as error:
        raise DataError(f"output_dir: '{output_dir}' cannot be written ({error.strerror}); change it") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"output_dir: another 'gptdist prep run' writes to '{output_dir}'; wait for it, or change output_dir"
            ) from None
        work = output_dir / WORK_NAME
        work.mkdir(exist_ok=True)
        yield work
