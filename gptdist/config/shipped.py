"""Configs that come with the project: ``configs/`` of a checkout, and in an installed package the same files.

Outside a checkout they keep their names: a ``configs/runs/demo-cpu.yaml`` that is not in the working folder is the
shipped one. Ranks and hosts get that name too, and each finds the file of its own installation.
"""

import difflib
import os
from importlib.resources import files
from pathlib import Path

from gptdist.errors import ConfigError

NAME = "configs"
"""First part of the name of every shipped config."""


def shipped_folder() -> Path:
    """Return the folder that holds all of them."""
    package = Path(str(files("gptdist")))
    installed = package / "shipped"  # a wheel has them inside of the package, where no other project's files can be
    return installed if installed.is_dir() else package.parent / NAME


def shipped_names() -> list[str]:
    """Return the names of all YAML files among them, as a command takes them."""
    folder = shipped_folder()
    return sorted(str(NAME / path.relative_to(folder)) for path in folder.rglob("*.yaml"))


def shipped_file(path: Path) -> Path | None:
    """Return the shipped file that ``path`` names, seen from the working folder; None where it names none."""
    first, *others = Path(os.path.relpath(path)).parts or ("",)
    found = shipped_folder().joinpath(*others)
    return found if first == NAME and found.is_file() else None


def missing_text(path: Path) -> str:
    """Return what to say of a config that is neither in the working folder nor shipped."""
    near = difflib.get_close_matches(os.path.relpath(path), shipped_names(), n=1, cutoff=0.8)
    known = f"; the nearest that is shipped: {near[0]}" if near else ""
    return (
        f"{path}: no such config file{known}; check the path, 'gptdist config --list' shows the shipped ones, "
        f"'gptdist config --copy {NAME}' copies them here to be edited"
    )


def copy_shipped(target: Path) -> list[Path]:
    """Copy all of them into a folder; files with the same content stay as they are. Return what was written.

    Raises:
        ConfigError: files with other contents are in the way; nothing is written.
    """
    folder = shipped_folder()
    contents = {
        target / path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    new = [path for path in contents if not path.exists()]
    same = [path for path in contents if path.is_file() and path.read_bytes() == contents[path]]
    in_the_way = {parent for path in new for parent in path.parents if parent.is_file()}
    in_the_way |= contents.keys() - {*new, *same}
    if in_the_way:
        raise ConfigError(
            f"{path}: is there, and not as shipped; move it, or copy to another folder" for path in sorted(in_the_way)
        )
    for path in new:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[path])
    return new
