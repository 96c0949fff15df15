"""CONTRIBUTING, SECURITY, CHANGELOG, CITATION and the forms for issues say what is so."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from benchmarks.code_shape import cycles, measure
from gptdist.cli.main import COMMANDS
from gptdist.version import VERSION
from tests.support.ranks import repository

FILES = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
FORMS = sorted((repository() / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(name: str) -> str:
    return (repository() / name).read_text()


def test_the_code_keeps_to_the_limits() -> None:
    shape = measure()
    assert shape.files > 400
    assert len(shape.functions) > 3000
    assert shape.percentile(0.5) <= 10
    assert shape.percentile(0.9) <= 35
    assert shape.functions[-1] <= 60
    assert shape.long_files == ()
    assert shape.cycles == ()


def test_cycles_and_lengths_are_seen(tmp_path: Path) -> None:
    assert list(cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}})) == [("b", "c"), ("d",)]
    for package in ("gptdist", "data_prep", "launch"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text('"""Nothing."""\n')
    (tmp_path / "gptdist" / "one.py").write_text("def first():\n    import gptdist.two\n    return 1\n" + "\n" * 400)
    (tmp_path / "gptdist" / "two.py").write_text("from gptdist import one\n\n\nasync def second():\n    return one\n")
    shape = measure(tmp_path)
    assert shape.cycles == (("gptdist.one", "gptdist.two"),)
    assert shape.long_files == ("gptdist.one",)
    assert shape.functions == (2, 3)


@pytest.mark.parametrize("name", FILES)
def test_paths_and_commands_exist(name: str) -> None:
    text = read(name)
    named = re.findall(r"`((?:gptdist|data_prep|launch|configs|tests|benchmarks|docs)/[\w./-]+)`", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [path for path in [*named, *links] if not (repository() / path).exists()]
    assert not missing
    assert named or links
    commands = {words.split()[1] for words in re.findall(r"`(gptdist [a-z-]+)", text)}
    assert commands <= set(COMMANDS)
    targets = set(re.findall(r"^make ([a-z]+)", text, flags=re.MULTILINE))
    assert targets <= set(re.findall(r"^([a-z]+):", read("Makefile"), flags=re.MULTILINE))


def test_contributing_tells_the_limits_of_the_linter() -> None:
    lint = tomllib.loads(read("pyproject.toml"))["tool"]["ruff"]
    text = read("CONTRIBUTING.md")
    assert f"complexity at {lint['lint']['mccabe']['max-complexity']}" in text
    assert f"arguments at {lint['lint']['pylint']['max-args']}" in text
    assert f"lines at {lint['line-length']} characters" in text


def test_security_names_rules_that_are_on() -> None:
    on = tomllib.loads(read("pyproject.toml"))["tool"]["ruff"]["lint"]["select"]
    rules = set(re.findall(r"\bS\d{3}\b", read("SECURITY.md")))
    assert len(rules) >= 5
    assert rules <= set(on)


def test_pickles_are_read_as_weights_only() -> None:
    """``torch.load`` stands where the promise says, and nowhere without ``weights_only=True``."""
    sources = [path for room in ("gptdist", "data_prep", "launch") for path in (repository() / room).rglob("*.py")]
    calls = {path: re.findall(r"torch\.load\((?!weights)[^\n]*", path.read_text()) for path in sources}
    found = [call for some in calls.values() for call in some]
    assert found
    assert all("weights_only=True" in call for call in found)


def test_versions_are_one() -> None:
    version = VERSION
    assert f"## [{version}]" in read("CHANGELOG.md")
    citation = yaml.safe_load(read("CITATION.cff"))
    assert str(citation["version"]) == version
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == tomllib.loads(read("pyproject.toml"))["project"]["license"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_are_forms(path: Path) -> None:
    tree = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert set(tree) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(tree) <= {"name", "description", "labels", "body"}
    names = [field["id"] for field in tree["body"]]
    assert len(set(names)) == len(names) > 1
    for field in tree["body"]:
        assert field["type"] == "textarea"
        assert field["attributes"]["label"]
    commands = re.findall(r"`gptdist ([a-z-]+)", path.read_text())
    assert set(commands) <= set(COMMANDS)
