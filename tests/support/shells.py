"""Real shells that complete lines with the scripts of ``gptdist completion``."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

TIMEOUT_SECONDS = 60

BASH = """\
source "$1"
while IFS= read -r line; do
  COMP_LINE=$line COMP_POINT=${#line}
  _gptdist
  printf '> %s\\n' "$line"
  if ((${#COMPREPLY[@]})); then printf '%s\\n' "${COMPREPLY[@]}"; fi
done
"""

FISH = """\
source $argv[1]
while read --local line
  printf '> %s\\n' "$line"
  complete --do-complete "$line"
end
"""

ZSH = """\
PROMPT='READY'
fpath=({folder} $fpath)
autoload -Uz compinit
compinit -u -D
dump() {{ print -rn -- "$BUFFER" > {folder}/buffer.part; mv {folder}/buffer.part {folder}/buffer; BUFFER= }}
zle -N dump
bindkey '^T' dump
"""


def bash_completions(script: Path, lines: list[str], folder: Path) -> dict[str, list[str]]:
    """Return what bash offers for each line, in ``folder``."""
    return _batch(["bash", "--norc", "-c", BASH, "bash", str(script)], lines, folder)


def fish_completions(script: Path, lines: list[str], folder: Path) -> dict[str, list[str]]:
    """Return what fish offers for each line, its texts behind tabs left out."""
    found = _batch(["fish", "--no-config", "-c", FISH, str(script)], lines, folder)
    return {line: [word.partition("\t")[0] for word in words] for line, words in found.items()}


def _batch(command: list[str], lines: list[str], folder: Path) -> dict[str, list[str]]:
    done = subprocess.run(
        command, input="".join(f"{line}\n" for line in lines), cwd=folder, capture_output=True, text=True,
        check=False, timeout=TIMEOUT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    found: dict[str, list[str]] = {}
    for said in done.stdout.splitlines():
        if said.startswith("> "):
            found[said[2:]] = []
        else:
            found[list(found)[-1]].append(said)
    assert list(found) == lines
    return found


class Zsh:
    """An interactive zsh; ``tab`` is what stands in its line after the key."""

    def __init__(self, script: Path, folder: Path, working_folder: Path) -> None:
        self._folder = folder
        (folder / "_gptdist").write_text(script.read_text())
        (folder / ".zshrc").write_text(ZSH.format(folder=folder))
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:  # pragma: no cover
            os.chdir(working_folder)
            os.execvpe("zsh", ["zsh", "-i"], {**os.environ, "ZDOTDIR": str(folder), "TERM": "vt100"})
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 500, 200, 0, 0))  # no "show all 100?"
        self._read_until(lambda said: "READY" in said)

    def tab(self, line: str) -> str:
        """Return the line after a press of the tabulator behind it."""
        buffer = self._folder / "buffer"
        buffer.unlink(missing_ok=True)
        os.write(self._terminal, line.encode() + b"\t\x14")
        self._read_until(lambda _: buffer.exists())
        return buffer.read_text()

    def close(self) -> None:
        """End it."""
        os.close(self._terminal)
        os.waitpid(self._pid, 0)

    def _read_until(self, is_done) -> None:
        said, deadline = "", time.monotonic() + TIMEOUT_SECONDS
        while not is_done(said):
            assert time.monotonic() < deadline, said
            if select.select([self._terminal], [], [], 0.02)[0]:
                said += os.read(self._terminal, 65536).decode(errors="replace")
