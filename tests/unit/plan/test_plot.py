"""Picture and page of a plan."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gptdist.cli.main import main
from gptdist.plan.device import find_device
from gptdist.plan.plot import draw
from gptdist.plan.projection import Cluster
from gptdist.plan.request import read_request
from gptdist.plan.sizes import default_sizes, project_sizes

MODEL = Path(__file__).parents[3] / "configs" / "models" / "llama3-8b.yaml"
OVERRIDES = ["memory.recompute=full", "batch.global_batch_size=96"]


class Checked(HTMLParser):
    """Refuses what would load or run anything, and tags that do not close."""

    VOID = ("meta", "br", "path", "use", "rect", "image")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe"), tag
        for name, value in attrs:
            assert name != "src", (tag, value)
            assert name not in ("href", "xlink:href") or str(value).startswith("#"), (tag, value)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()


def test_powers_of_two_and_the_number_asked_for() -> None:
    assert default_sizes(3) == [1, 2, 3, 4, 8, 16]


def test_sizes_that_are_not_legal_are_named() -> None:
    device = find_device("h100-80gb")
    config, _ = read_request(MODEL, OVERRIDES, device, num_nodes=3, tokens=None)
    sizes = project_sizes(config, Cluster(device, 3, 8))
    assert [one.cluster.num_nodes for one in sizes.legal] == [1, 2, 3, 4]
    assert set(sizes.left_out) == {8, 16}
    speeds = [one.tokens_per_second for one in sizes.legal]
    assert speeds == sorted(speeds)
    picture = draw(sizes, "svg").decode()
    assert "not legal, so left out: 8, 16 nodes" in picture
    assert "memory of a device" in picture
    assert draw(sizes, "svg").decode() == picture


def test_picture_and_page_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, page = tmp_path / "plan.png", tmp_path / "plan.html"
    arguments = [str(MODEL), *OVERRIDES, "name=a<b", "--nodes", "2", "--device", "h100-80gb"]
    assert main(["plan", *arguments, "--plot", str(picture), "--html", str(page)]) == 2  # a name of a folder, no tag
    arguments.remove("name=a<b")
    assert main(["plan", *arguments, "--plot", str(picture), "--html", str(page)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text("utf-8")
    checked = Checked()
    checked.feed(text)
    assert checked.open == []
    assert "prefers-color-scheme: dark" in text
    shown = re.findall(r"<tr><td>([^<]+)</td>", text)
    assert {"mfu", "energy", "step: matmul", "memory: activations", "checkpoint"} <= set(shown)


@pytest.mark.parametrize(
    ("option", "name", "told"),
    [
        ("--plot", "plan.jpg", "ends with none of .png, .svg"),
        ("--html", "plan.txt", "ends with none of .html"),
        ("--plot", "none/plan.png", "does not exist; make it, or name another"),
    ],
)
def test_files_that_cannot_be_written(
    option: str, name: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(MODEL), "--device", "h100-80gb", option, str(tmp_path / name)]) == 2
    assert told in capsys.readouterr().err
