"""DeepSpeed's C++ extensions compiled with torch's headers read once instead of once for each source file.

Reading them is nearly all that the small sources of ``async_io`` cost. Those of a folder are written into one file, in
which each of DeepSpeed's own headers, of which some have no guard, stands once.
"""

import contextlib
import fcntl
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gptdist.durable import write_whole

TESTED_DEEPSPEED = "0.19."
"""Begins the versions whose sources can be joined; those of others are compiled as they are."""

_JOINED = ("py_lib", "pin_memory")
"""Folders whose sources include torch, and whose names do not clash."""

_INCLUDE = re.compile(r'\s*#\s*include\s*["<]([\w./]+)[">]')


@contextlib.contextmanager
def joined_sources(version: str) -> Iterator[None]:
    """Have ``torch.utils.cpp_extension.load`` join the sources of DeepSpeed ``version`` within."""
    from torch.utils import cpp_extension

    plain = cpp_extension.load

    def load(name: str, sources: Sequence[str], extra_include_paths: Sequence[str], **more: Any) -> Any:
        folder = Path(cpp_extension._get_build_directory(name, verbose=False))
        headers = [Path(path) for path in extra_include_paths if "csrc" in Path(path).parts]
        more["extra_cflags"] = [flag for flag in more["extra_cflags"] if flag != "-g"]  # a fifth, and nobody debugs it
        with (folder / "joined.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the ranks of a machine come at once
            joined = join(sources, headers, folder)
        return plain(name, joined, extra_include_paths=extra_include_paths, **more)

    if version.startswith(TESTED_DEEPSPEED):
        cpp_extension.load = load  # type: ignore[assignment]  # as DeepSpeed calls it, by keywords
    try:
        yield
    finally:
        cpp_extension.load = plain


def join(sources: Sequence[str], headers: Sequence[Path], folder: Path) -> list[str]:
    """Return ``sources`` with those of a folder in one file, which is written to ``folder`` unless it is there.

    Args:
        sources: of one extension.
        headers: folders of DeepSpeed's own headers.
        folder: where the extension is built.
    """
    joined: dict[str, list[Path]] = {}
    found = []
    for source in sources:
        parent = Path(source).parent.name
        if parent in _JOINED:
            joined.setdefault(parent, []).append(Path(source))
        else:
            found.append(source)
    for name, parts in joined.items():
        seen: set[Path] = set()
        text = "".join(line for part in parts for line in _expanded(part, headers, seen))
        path = folder / f"all_of_{name}.cpp"
        if not path.exists() or path.read_text() != text:  # a newer one would be compiled again
            write_whole(path, text.encode())
        found.append(str(path))
    return found


def _expanded(path: Path, headers: Sequence[Path], seen: set[Path]) -> Iterator[str]:
    """Yield the lines of a file, with those of each header of ``headers`` where it is included first."""
    yield f'#line 1 "{path}"\n'
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = _INCLUDE.match(line)
        candidates = [folder / match[1] for folder in (path.parent, *headers)] if match else []
        header = next((one.resolve() for one in candidates if one.is_file()), None)
        if header is None:
            yield f"{line}\n"
        elif header not in seen:
            seen.add(header)
            yield from _expanded(header, headers, seen)
            yield f'#line {number + 1} "{path}"\n'
        else:
            yield "\n"
