"""JSON Schemas of config files for editors: what the sections say, and what the loader adds.

Draft 7, which editors know best. A file may build on others (``base``) or be built on, so that no key of a mapping is
missing from it for sure: only the items of lists, which are replaced as a whole, keep their required keys. YAML 1.2
proper reads ``375_000_000``, a number to the loader, as a string; the schema takes it for both.
"""

from collections.abc import Iterator
from typing import Any

from gptdist.config.section import Section
from gptdist.config.source import BASE_KEY

DRAFT = "http://json-schema.org/draft-07/schema#"

GROUPED_DIGITS = {
    "integer": r"^[-+]?[0-9]+(_[0-9]+)+$",
    "number": r"^[-+]?[0-9]+(_[0-9]+)+(\.[0-9]*)?([eE][-+]?[0-9]+)?$",
}
"""Strings that the loader reads as a number of that type."""

BASE = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "Files that this one builds on, relative to it; later ones win, and this one over all.",
}


def json_schema(cls: type[Section], title: str) -> dict[str, Any]:
    """Return the schema of files that hold a ``cls``."""
    whole = cls.model_json_schema(ref_template="#/definitions/{model}")
    definitions = whole.pop("$defs", {})
    in_lists = set(_listed(whole)) | {name for one in definitions.values() for name in _listed(one)}
    for name, one in definitions.items():
        if name not in in_lists:
            one.pop("required", None)
    whole.pop("required", None)
    whole["properties"] = {BASE_KEY: BASE} | whole["properties"]
    tree = {"$schema": DRAFT, "title": title} | _mended(whole)
    if definitions:
        tree["definitions"] = {name: _mended(definitions[name]) for name in sorted(definitions)}
    return tree


def _listed(schema: Any, *, is_item: bool = False) -> Iterator[str]:
    """Name every definition that ``schema`` has as an item of a list."""
    if isinstance(schema, list):
        for inner in schema:
            yield from _listed(inner, is_item=is_item)
    elif isinstance(schema, dict):
        if is_item and "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        for key, inner in schema.items():
            yield from _listed(inner, is_item=is_item or key in ("items", "prefixItems"))


def _mended(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of pydantic in draft 7, with descriptions on one line and without titles made of key names."""
    made = {key: value for key, value in schema.items() if key != "title"}
    if "description" in made:
        made["description"] = " ".join(made["description"].replace("``", "`").split())
    if "properties" in made:
        made["properties"] = {name: _mended(one) for name, one in made["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = _mended(made[key])
    for key in ("anyOf", "oneOf"):
        if key in made:
            made[key] = [_mended(one) for one in made[key]]
    if "prefixItems" in made:
        made |= {"items": [_mended(one) for one in made.pop("prefixItems")], "additionalItems": False}
    if made.get("type") in GROUPED_DIGITS and "enum" not in made and "const" not in made:
        made |= {"type": [made["type"], "string"], "pattern": GROUPED_DIGITS[made["type"]]}
    if "$ref" in made and len(made) > 1:  # draft 7 reads nothing beside a reference
        made["allOf"] = [{"$ref": made.pop("$ref")}]
    return made
