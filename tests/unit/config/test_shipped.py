"""Shipped configs outside a checkout: their names, what a user's own file changes, copies, and what is said."""

from pathlib import Path

import pytest

from gptdist.cli.main import main
from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from gptdist.config.shipped import copy_shipped, shipped_file, shipped_folder, shipped_names
from gptdist.config.source import read_tree
from gptdist.errors import ConfigError
from tests.support.ranks import repository

DEMO = Path("configs/runs/demo-cpu.yaml")
MODEL = Path("configs/models/gpt2-1m.yaml")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_shipped_config_is_read_by_its_name(empty: Path) -> None:
    names = shipped_names()
    assert {str(DEMO), str(MODEL), "configs/data/demo.yaml", "configs/devices/networks/efa-3200.yaml"} <= set(names)
    for name in names:
        assert read_tree(Path(name)) == read_tree(repository() / name)


def test_a_file_in_the_working_folder_comes_first(empty: Path) -> None:
    _write(empty / MODEL, "model: {num_layers: 7}\n")
    assert read_tree(MODEL) == {"model": {"num_layers": 7}}


def test_a_shipped_config_builds_on_shipped_ones_whatever_is_in_the_working_folder(empty: Path) -> None:
    before = load_config(RunConfig, DEMO)
    _write(empty / MODEL, "model: {num_layers: 7}\n")
    assert load_config(RunConfig, DEMO) == before


@pytest.mark.parametrize("base", [str(MODEL), "../models/gpt2-1m.yaml"])
@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_config_of_ones_own_builds_on_shipped_ones(empty: Path, base: str, is_absolute: bool) -> None:
    own = _write(empty / "configs" / "runs" / "mine.yaml", f"base: {base}\nmodel: {{num_layers: 7}}\n")
    tree = read_tree(own if is_absolute else own.relative_to(empty))
    shipped = read_tree(repository() / MODEL)
    assert tree["model"] == shipped["model"] | {"num_layers": 7}


def test_a_config_elsewhere_builds_on_shipped_ones_by_their_names(empty: Path, tmp_path: Path) -> None:
    own = _write(tmp_path / "elsewhere" / "mine.yaml", f"base: {MODEL}\n")
    _write(empty / MODEL, "model: {num_layers: 7}\n")
    assert read_tree(own) == read_tree(repository() / MODEL), "relative to its file, which has none, and not to here"


def test_a_base_of_ones_own_comes_before_the_shipped_one(empty: Path) -> None:
    _write(empty / MODEL, "model: {num_layers: 7}\n")
    own = _write(empty / "mine.yaml", f"base: {MODEL}\n")
    assert read_tree(own) == {"model": {"num_layers": 7}}


@pytest.mark.parametrize(
    "name",
    [
        "configs/../pyproject.toml",
        "configs/../../pyproject.toml",
        "other/configs/runs/demo-cpu.yaml",
        "/none/configs/runs/demo-cpu.yaml",
        "mine/runs/demo-cpu.yaml",
        "configs/runs",
        "configs",
    ],
)
def test_other_paths_name_no_shipped_config(empty: Path, name: str) -> None:
    assert shipped_file(Path(name)) is None
    with pytest.raises(ConfigError, match=r"no such config file"):
        read_tree(Path(name))


def test_a_missing_config_is_told_with_what_is_near_and_how_to_get_it(empty: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_tree(Path("configs/runs/demo-gpu.yaml"))
    assert list(error.value.problems) == [
        "configs/runs/demo-gpu.yaml: no such config file; the nearest that is shipped: configs/runs/demo-cpu.yaml; "
        "check the path, 'gptdist config --list' shows the shipped ones, "
        "'gptdist config --copy configs' copies them here to be edited"
    ]
    with pytest.raises(ConfigError, match=r"^mine.yaml: no such config file; check the path, 'gptdist config --list'"):
        read_tree(Path("mine.yaml"))


def test_copies_are_as_shipped_and_read_like_them(empty: Path) -> None:
    before = load_config(RunConfig, DEMO)
    written = copy_shipped(empty / "configs")
    others = {Path("configs/hosts.txt"), Path("configs/schema/run.schema.json")}
    assert {path.relative_to(empty) for path in written} >= {*map(Path, shipped_names()), *others}
    assert (empty / DEMO).read_bytes() == (repository() / DEMO).read_bytes()
    assert load_config(RunConfig, empty / DEMO) == before
    assert copy_shipped(empty / "configs") == []
    (empty / DEMO).unlink()
    assert copy_shipped(empty / "configs") == [empty / DEMO], "only what is missing"


def test_a_copy_replaces_nothing(empty: Path) -> None:
    own = _write(empty / "mine" / "runs" / "demo-cpu.yaml", "name: mine\n")
    _write(empty / "mine" / "models", "a file where a folder has to be\n")
    with pytest.raises(ConfigError) as error:
        copy_shipped(Path("mine"))
    assert list(error.value.problems) == [
        f"mine/{name}: is there, and not as shipped; move it, or copy to another folder"
        for name in ("models", "runs/demo-cpu.yaml")
    ]
    assert own.read_text() == "name: mine\n"
    assert not (empty / "mine" / "data").exists(), "all or nothing"


def test_the_command_lists_and_copies(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == shipped_names()
    assert main(["config", "--copy", "mine"]) == 0
    assert capsys.readouterr().out == f"{len(written := list(Path('mine').rglob('*.*')))} files written to mine\n"
    assert len(written) > len(shipped_names()), "schemas and a hostfile, too"
    assert main(["config"]) == main(["config", str(DEMO), "--list"]) == 2
    assert capsys.readouterr().err.count("config: error: CONFIG, --list or --copy DIR: exactly one") == 2


def test_it_is_said_once_which_file_is_taken(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", str(DEMO), "--quiet"]) == 0
    file = shipped_folder() / "runs" / "demo-cpu.yaml"
    assert capsys.readouterr().err == (
        f"gptdist config: {DEMO} is not in this folder, the shipped one is taken: {file}\n"
    )
    assert main(["compress", "configs/recipes/half-cpu.yaml", "--dry-run"]) == 2, "its model is not here"
    assert capsys.readouterr().err.count("recipes/half-cpu.yaml is not in this folder, the shipped one is taken") == 1
    copy_shipped(Path("configs"))
    assert main(["config", str(DEMO), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


SLURM = ["slurm", str(DEMO), "--nodes", "1", "--dry-run"]


@pytest.mark.parametrize("words", [["local", str(DEMO), "--dry-run"], SLURM], ids=["local", "slurm"])
def test_ranks_get_the_name_and_not_this_installations_path(
    empty: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["launch", *words]) == 0
    printed = capsys.readouterr().out
    assert f" {DEMO}" in printed
    assert "demo-cpu.yaml" not in printed.replace(str(DEMO), "")


def test_pods_get_it_resolved(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "k8s", str(DEMO), "--nodes=1", "--image=i", "--volume=claim:/data", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "demo-cpu.yaml" not in printed
    assert "hidden_size: 128" in printed


def test_commands_that_look_for_devices_and_models_find_them(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "configs/models/gpt3-125m.yaml", "--device", "h100-80gb", "--interconnect", "efa-3200"]) == 0
    assert "h100-80gb" in capsys.readouterr().out
    assert main(["scaling", "--flops", "1e21"]) == 0
    assert "gpt3-" in capsys.readouterr().out, "the preset nearest to the best size"


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    import re

    from gptdist.version import VERSION

    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"gptdist {VERSION}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
