"""The page in a real browser, as a file and served; what it may load; the command."""

import hashlib
import http.client
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptdist.checkpoint.manifest import MANIFEST_NAME
from gptdist.cli.main import main
from gptdist.local_server import LocalServer
from gptdist.report.gather import open_runs
from gptdist.report.page import script_json
from gptdist.report.watch import make_server
from tests.support.browser import CHROMIUM, Page, browser_page
from tests.unit.report.made_run import SHOWN, append, make_run, train_row

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
REQUESTED = "performance.getEntriesByType('resource').map((one) => one.name)"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


@pytest.fixture
def server(run: Path) -> Iterator[LocalServer]:
    server = make_server(open_runs([run], in_full=False, device=None), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(server: LocalServer, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def curve_points(page: Page, chart: str) -> str:
    return str(page.run(f"document.querySelector('#chart-{chart} path.curve:not(.lost)').getAttribute('d')"))


@needs_browser
def test_curves_are_drawn_and_follow_what_is_chosen(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    with browser_page() as page:
        page.look(width=1440)
        page.open(f"file://{run}/report.html")
        assert len(re.findall("[ML]", curve_points(page, "loss"))) == 20, "kept steps of both attempts are one curve"
        assert page.run("document.querySelectorAll('#chart-loss path.lost').length") == 1
        assert page.run("document.querySelectorAll('#chart-loss path.skipped').length") == 1
        assert page.run("document.querySelectorAll('#chart-time path.area').length") == 10
        label = page.run("document.querySelector('#chart-loss svg.plot').getAttribute('aria-label')")
        assert label.startswith("Loss, nats a token: training from 4.99 at step 1 to 4.8 at step 20")
        page.click("#chart-loss svg.plot")
        pinned = page.run("document.getElementById('pinned').textContent")
        step = re.search(r"step (\d+),", pinned)
        assert step is not None
        assert f"gptdist triage {run} --step {step[1]}" in pinned
        page.click("input[value=t]")
        page.run("document.querySelector('#chart-loss svg.plot').focus()")
        page.press("ArrowRight")
        page.press("Enter")
        axis = page.run("[...document.querySelectorAll('#chart-loss svg.plot > g')][0].textContent")
        assert "10 k" in axis, "tokens are on the axis"
        assert "tokens" in page.run("document.querySelector('#chart-loss .read').textContent")
        straight = curve_points(page, "loss")
        page.click("#chart-loss figcaption button")
        assert curve_points(page, "loss") != straight, "a logarithmic scale"
        page.click("#smooth")
        assert page.run("document.querySelectorAll('#chart-loss path.raw').length") == 1
        assert "bold: means over 3 lines" in page.run("document.querySelector('#chart-loss .legend').textContent")
        assert page.run(REQUESTED) == []
        assert page.told == []


@needs_browser
def test_texts_of_a_run_stay_texts_at_every_width(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    with browser_page() as page:
        for width, dark in ((390, False), (1440, True)):
            page.look(width=width, dark=dark)
            page.open(f"file://{run}/report.html")
            assert page.run("document.title") == str(run)
            assert page.run("document.querySelector('#texts pre').textContent") == "def" + SHOWN
            assert page.run("document.images.length") == 0
            assert page.overflow() <= 0
            colour = page.run("getComputedStyle(document.body).backgroundColor")
            assert colour == ("rgb(22, 25, 29)" if dark else "rgb(255, 255, 255)")
        assert page.told == []


@needs_browser
def test_several_runs_lie_over_each_other(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", optimizer={"lr": 0.5})
    output = tmp_path / "both.html"
    assert main(["report", str(run), str(other), "--output", str(output)]) == 0
    with browser_page() as page:
        page.look(width=1440)
        page.open(f"file://{output}")
        curves = "document.querySelectorAll('#chart-lr path.curve:not(.lost)').length"
        assert page.run(curves) == 2
        assert "optimizer.lr" in page.run("document.getElementById('differences').innerText")
        page.click("#shown input")
        assert page.run(curves) == 1
        page.run("document.getElementById('run').value = " + json.dumps(str(other)))
        page.run("document.getElementById('run').dispatchEvent(new Event('change'))")
        assert str(other) in page.run("document.querySelector('#plan code').textContent")
        assert page.told == []


@needs_browser
def test_a_served_page_follows_the_run_and_keeps_what_was_chosen(run: Path, server: LocalServer) -> None:
    with browser_page() as page:
        page.look(width=1440)
        page.open(f"http://127.0.0.1:{server.server_address[1]}/")
        page.run("document.querySelector('#chart-loss svg.plot').focus()")
        page.press("ArrowRight")
        page.press("+")
        page.run("document.querySelectorAll('#texts details')[0].open = false")
        page.wait("!document.getElementById('whole').hidden")
        append(run, *(train_row(step, 2) for step in range(21, 31)))
        page.wait("document.querySelector('#summary').innerText.includes('30 of')")
        assert not page.run("document.getElementById('whole').hidden"), "the zoom stays"
        assert not page.run("document.querySelectorAll('#texts details')[0].open")
        page.press("Escape")
        assert len(re.findall("[ML]", curve_points(page, "loss"))) == 30
        assert {name.partition("?")[0].rpartition("/")[2] for name in page.run(REQUESTED)} == {"records"}
        assert page.told == []


def test_the_server_answers_its_own_page_alone(run: Path, server: LocalServer) -> None:
    port = server.server_address[1]
    assert ask(server, "/")[0] == 200
    assert ask(server, "/records", host=f"localhost:{port}")[0] == 200
    assert ask(server, "/records", host=f"evil.example:{port}")[0] == 421
    assert ask(server, "/records", method="POST")[0] == 501
    for path in ("/../config.yaml", "/config.yaml", "//etc/passwd", "/records/..", "/%2e%2e/config.yaml"):
        assert ask(server, path)[0] == 404, path


def test_records_are_sent_again_only_if_they_changed(run: Path, server: LocalServer) -> None:
    first = json.loads(ask(server, "/records")[1])
    assert json.loads(ask(server, f"/records?made={first['made']}")[1]) == {"made": first["made"]}
    append(run, train_row(21, 2))
    second = json.loads(ask(server, f"/records?made={first['made']}")[1])
    assert second["runs"][0]["summary"][1]["value"].startswith("21 of")


def test_json_in_a_script_element_cannot_end_it() -> None:
    assert json.loads(script_json({"a": SHOWN + "\u2028&"})) == {"a": SHOWN + "\u2028&"}
    assert not set("<>&\u2028") & set(script_json({"a": SHOWN + "\u2028&"}))


def test_the_command_prints_what_the_page_shows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert found["state"] == "done"
    assert not (run / "report.html").exists()


def test_mistakes_are_told_all_at_once(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--port", "70000", "--json", "--output", str(tmp_path / "no" / "x.html")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in said] == ["--port", "--json", "--output"]
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no ledger, no metrics and no checkpoint" in capsys.readouterr().err
    assert main(["report", str(run), "--device", "h1000"]) == 2
    assert "--device: no 'h1000'" in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    assert main(["report", str(run), "--output", str(tmp_path / "folder")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_checkpoint_of_the_wrong_size_is_damaged_and_hashes_are_compared_on_request(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(_checkpoint(run), run / "checkpoints" / "step_00000020")
    assert states(run, capsys) == {20: "files and sizes are right", 10: "not there"}
    file = run / "checkpoints" / "step_00000020" / "part.bin"
    file.write_bytes(b"x" * 8)
    assert states(run, capsys)[20] == "files and sizes are right"
    assert states(run, capsys, "--verify")[20] == "damaged"
    file.write_bytes(b"x" * 7)
    assert states(run, capsys)[20] == "damaged"


def states(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[int, str]:
    assert main(["report", str(run), "--json", *options]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    return {row["step"]: row["state"] for row in found["checkpoints"]}


def _checkpoint(run: Path) -> Path:
    """A step folder with one file and no tensor."""
    folder = run / "made"
    folder.mkdir()
    content = b"12345678"
    (folder / "part.bin").write_bytes(content)
    layout = dict.fromkeys(
        ("world_size", "tensor_parallel_size", "context_parallel_size", "data_parallel_size", "pipeline_parallel_size",
         "expert_parallel_size"), 1,
    )  # fmt: skip
    (folder / MANIFEST_NAME).write_text(
        json.dumps(
            {
                "format": "gptdist-checkpoint", "version": 1, "config": {}, "tensors": [], "fragments": [],
                "tokenizer_fingerprint": "", "data_fingerprints": {},
                "files": [{"name": "part.bin", "num_bytes": 8, "sha256": hashlib.sha256(content).hexdigest()}],
                "layout": layout | {"zero_stage": 1},
                "progress": {"step": 20, "consumed_samples": 160, "consumed_tokens": 10240, "optimizer_step": 20},
            }
        )
    )  # fmt: skip
    return folder
