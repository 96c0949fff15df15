"""The output folder of a run: one run at a time, leftovers of a killed one removed, results swapped in whole."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptdist.errors import DataError

_LOCK_NAME = ".prep.lock"
_WORK_NAME = ".prep-partial"


@contextmanager
def work_folder(output_dir: Path) -> Iterator[Path]:
    """Lock ``output_dir`` and give an empty folder in it for unfinished work; it is removed at the end.

    Raises:
        DataError: another run has the lock, or the folder cannot be written.
    """
    lock_path = output_dir / _LOCK_NAME
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
        work = output_dir / _WORK_NAME
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
