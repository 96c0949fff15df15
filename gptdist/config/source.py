"""Config text to plain data: YAML 1.2, ``base`` files, and ``key=value`` overrides.

YAML 1.2 matters: under YAML 1.1 ``6e-4`` is a string, ``on`` is true, ``12:00:00`` is 43200, and a key given twice
silently wins.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gptdist.config.shipped import missing_text, shipped_file
from gptdist.errors import ConfigError

BASE_KEY = "base"
"""Key of a config file that lists the files it builds on, relative to that file; later files win. A name that begins
with ``configs/`` and is not there is a shipped one's."""


def read_tree(path: Path) -> dict[str, Any]:
    """Return the data of a config file, merged over the files its ``base`` names.

    A shipped config builds on shipped ones, whatever the working folder holds.

    Raises:
        ConfigError: the file is missing, is not YAML, is not a mapping, repeats a key, or includes itself.
    """
    return _read(_found(path), ())


def apply_overrides(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return ``tree`` with each ``a.b=value`` of ``overrides`` put in; values are YAML.

    Raises:
        ConfigError: an override without ``=``, a value that is not YAML, or a path through something not a mapping.
    """
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            problems.append(f"{override}: not an override; write key=value, such as batch.micro_batch_size=8")
            continue
        try:
            value = _yaml().load(text) if text else None
        except YAMLError:
            problems.append(f"{key}: value '{text}' is not YAML; quote it")
            continue
        nested: dict[str, Any] = {}
        leaf = nested
        *parents, last = key.split(".")
        for parent in parents:
            leaf[parent] = leaf = {}
        leaf[last] = value
        tree = _merged(tree, nested)
    if problems:
        raise ConfigError(problems)
    return tree


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError([f"{path}: includes itself through '{BASE_KEY}'; break the circle"])
    try:
        tree = _yaml().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([missing_text(path)]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}: is a folder; name a .yaml file in it"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8"]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise ConfigError([f"{place}: {_one_line(error.problem)}; mend the YAML"]) from None
    except YAMLError as error:
        raise ConfigError([f"{path}: {_one_line(str(error))}; mend the YAML"]) from None
    if not isinstance(tree, dict):
        raise ConfigError([f"{path}: holds {type(tree).__name__}, not a mapping; write 'key: value' lines"])
    bases = tree.pop(BASE_KEY, [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = _merged(merged, _read(_found_base(path, str(base)), (*seen, path.resolve())))
    return _merged(merged, tree)


def _found(path: Path) -> Path:
    return path if path.exists() else shipped_file(path) or path


def _found_base(path: Path, base: str) -> Path:
    beside = _found(path.parent / base)
    return beside if beside.exists() else shipped_file(Path(base)) or beside


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key; any other value of ``over`` replaces that of ``under`` whole."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _one_line(text: str | None) -> str:
    return " ".join((text or "cannot be read").split())
