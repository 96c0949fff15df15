"""``gptdist rate A B`` as a user starts it: texts are drawn, a vote arrives, the report counts it."""

import http.client
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.unit.compress.exported import saved_run

GPTDIST = [sys.executable, "-m", "gptdist.cli.main", "rate"]


def _ask(port: int, method: str, path: str, body: str | None = None, **headers: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    assert answer.status == 200
    text = answer.read().decode()
    connection.close()
    return text


def test_a_vote_is_in_the_report(tmp_path: Path) -> None:
    one, _ = saved_run(tmp_path / "one", {})
    two, _ = saved_run(tmp_path / "two", {"num_layers": 3})
    prompts, results = tmp_path / "prompts.txt", tmp_path / "votes.sqlite"
    prompts.write_text("the loss\n")
    words = [str(one), str(two), "--prompts", str(prompts), "--results", str(results), "--port", "0"]
    served = subprocess.Popen([*GPTDIST, *words, "--max-new-tokens", "4"], stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        line = served.stdout.readline()
        found = re.fullmatch(r"1 prompts; rate at http://127\.0\.0\.1:(\d+)/ and stop with Ctrl-C\n", line)
        assert found, line
        port = int(found[1])
        (token,) = re.findall(r'name="token" content="([^"]+)"', _ask(port, "GET", "/"))
        pair = json.loads(_ask(port, "GET", "/pairs?rater=Ada"))["pairs"][0]
        vote = json.dumps({"key": pair["key"], "rater": "Ada", "choice": "left"})
        _ask(port, "POST", "/votes", vote, Origin=f"http://127.0.0.1:{port}", X_Token=token)
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=60)
    assert served.returncode == 130
    done = subprocess.run([*GPTDIST, "report", str(results), "--json"], capture_output=True, text=True, check=True)
    (pair,) = json.loads(done.stdout)["pairs"]
    assert sum(pair["wins"]) == 1
    assert pair["raters"] == ["Ada"]
