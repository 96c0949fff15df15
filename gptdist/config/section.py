"""A config section: a frozen pydantic model that refuses unknown keys and wrong types, and says how to mend them."""

import difflib
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from gptdist.errors import ConfigError

UNION_TAG = "tag:"
"""Begins the tag of each member of a union of sections; pydantic puts it into the place of an error, a user never."""


class Section(BaseModel):
    """Base of all config sections.

    Types are strict (``"3"`` is not an integer, ``1`` is not a boolean), instances are immutable, unknown keys are
    errors. The string below a field is its documentation and ends up in the JSON schema.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @classmethod
    def from_tree(cls, tree: dict[str, Any], origin: str = "") -> Self:
        """Build the section from plain YAML data.

        Args:
            tree: mappings, lists, strings, numbers, booleans and None only.
            origin: what to put before each problem, such as a file name.

        Raises:
            ConfigError: with every unknown key, missing key and wrong type.
        """
        prefix = f"{origin}: " if origin else ""
        try:
            # By way of JSON: there, strict mode takes a list for a tuple and a string for a path, as YAML means them.
            return cls.model_validate_json(json.dumps(tree, default=str))
        except ValidationError as error:
            raise ConfigError(prefix + line for line in _explain(cls, error)) from None

    def tree(self) -> dict[str, Any]:
        """Return the section as plain data that ``from_tree`` takes back."""
        return dict(self.model_dump(mode="json"))


def _explain(cls: type[Section], error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        path = [part for part in problem["loc"] if not str(part).startswith(UNION_TAG)]
        where = _dotted(path)
        match problem["type"]:
            case "extra_forbidden":
                yield f"{where}: unknown key; {_suggest(cls, path)}"
            case "missing":
                yield f"{where}: missing; set it"
            case "value_error":
                yield f"{where}: {problem['ctx']['error']}" if where else str(problem["ctx"]["error"])
            case _:
                found = json.dumps(problem["input"], default=str)
                yield f"{where}: {_lower_first(problem['msg'])}, got {found[:80]}; change the value"


def _dotted(path: list[int | str]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _suggest(cls: type[Section], path: list[int | str]) -> str:
    """Say which known key the unknown one at ``path`` is nearest to."""
    wanted = str(path[-1])
    siblings = _fields_at(cls, path[:-1])
    elsewhere = [known for known in _all_keys(cls) if known.rpartition(".")[2] == wanted]
    if elsewhere:  # the very word says more than one that is spelt alike
        return f"did you mean '{elsewhere[0]}'?"
    near = difflib.get_close_matches(wanted, siblings, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known here: {', '.join(sorted(siblings))}"


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    """Every Section class that an annotation such as ``tuple[A | B, ...] | None`` mentions."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, Section):
            yield annotation
        return
    for inner in typing.get_args(annotation):
        yield from _sections_in(inner)


def _fields_at(cls: type[Section], path: list[int | str]) -> list[str]:
    classes: list[type[Section]] = [cls]
    for part in path:
        if isinstance(part, str):
            fields = [known.model_fields[part] for known in classes if part in known.model_fields]
            classes = [inner for field in fields for inner in _sections_in(field.annotation)]
    return sorted({name for known in classes for name in known.model_fields})


def _all_keys(cls: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in cls.model_fields.items():
        yield prefix + name
        for inner in _sections_in(field.annotation):
            yield from _all_keys(inner, f"{prefix}{name}.")


def path_problem(where: str, path: Path, *, kind: str, advice: str) -> list[str]:
    """Return the problem of a missing ``path``, or nothing.

    Args:
        where: the config path that names it.
        path: what has to exist, relative to the working folder.
        kind: ``"file"`` or ``"folder"``.
        advice: what to do about it.
    """
    if path.is_file() if kind == "file" else path.is_dir():
        return []
    return [f"{where}: {kind} '{path}' does not exist; {advice}"]
