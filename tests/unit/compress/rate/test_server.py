"""Who may vote, what is answered, and, in a real browser, that votes reach the right model."""

import http.client
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptdist.compress.rate.pairs import make_pairs
from gptdist.compress.rate.server import Ratings, make_server
from gptdist.compress.rate.store import Store
from gptdist.errors import ConfigError
from tests.support.browser import CHROMIUM, browser_page

PROMPTS = ["The purpose of a network is", "<b>bold</b>", "def main():\n", "Once"]
TEXTS = {
    "m1": dict.fromkeys(PROMPTS, " good text") | {PROMPTS[1]: "<script>document.title='owned'</script> good"},
    "m2": dict.fromkeys(PROMPTS, " poor text") | {PROMPTS[1]: "<img src=x onerror=\"document.title='owned'\"> poor"},
}


@pytest.fixture
def ratings(tmp_path: Path) -> Ratings:
    return Ratings(make_pairs(PROMPTS, TEXTS), Store(tmp_path / "r.sqlite"), seed=1)


@pytest.fixture
def port(ratings: Ratings) -> Iterator[int]:
    server = make_server(ratings, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def _ask(port: int, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def _vote(port: int, ratings: Ratings, body: object = None, **headers: str) -> int:
    key = next(iter(ratings.pairs))
    sent = {"key": key, "rater": "Ada", "choice": "left"} if body is None else body
    known = {"Origin": f"http://127.0.0.1:{port}", "X_Token": ratings.token} | headers
    return _ask(port, "POST", "/votes", sent if isinstance(sent, str) else json.dumps(sent), **known)[0]


def test_votes_of_strangers_are_refused(ratings: Ratings, port: int) -> None:
    assert _vote(port, ratings, X_Token="wrong") == 403
    assert _vote(port, ratings, Origin="http://evil.example") == 403
    assert _vote(port, ratings, Host="evil.example") == 421
    assert _ask(port, "GET", "/", Host=f"evil.example:{port}")[0] == 421
    assert _vote(port, ratings, "x" * 5000) == 413
    assert ratings.store.votes() == []
    assert _vote(port, ratings) == 200
    assert [vote.rater for vote in ratings.store.votes()] == ["Ada"]


def test_what_is_no_vote_or_no_page_is_refused(ratings: Ratings, port: int) -> None:
    key = next(iter(ratings.pairs))
    for body in (
        "{", "[]", {"key": key}, {"key": "no", "rater": "a", "choice": "left"},
        {"key": key, "rater": " ", "choice": "left"}, {"key": key, "rater": "a" * 61, "choice": "left"},
        {"key": key, "rater": "a", "choice": "best"}, {"key": [], "rater": "a", "choice": "left"},
        {"key": key, "rater": "a\n", "choice": []},
    ):  # fmt: skip
        assert _vote(port, ratings, body) == 400, body
    for path in ("/../../etc/passwd", "/rate.py", "/pairs/..", "//etc/passwd"):
        assert _ask(port, "GET", path)[0] == 404, path
    assert _ask(port, "GET", "/pairs?rater=")[0] == 400
    assert ratings.store.votes() == []


def test_the_page_does_not_tell_who_wrote_what_and_sides_are_shuffled(ratings: Ratings, port: int) -> None:
    status, text = _ask(port, "GET", "/pairs?rater=Ada")
    assert status == 200
    assert "m1" not in text
    assert "m2" not in text
    sides = {tuple(pair.sides(rater, 1)) for pair in ratings.pairs.values() for rater in ("Ada", "Bob", "Eve")}
    assert sides == {("m1", "m2"), ("m2", "m1")}
    pair = next(iter(ratings.pairs.values()))
    assert pair.sides("Ada", 1) == pair.sides("Ada", 1)
    assert len({pair.sides("Ada", seed) for seed in range(20)}) == 2


def test_addresses_of_everyone_and_ports_in_use_are_refused(ratings: Ratings, port: int) -> None:
    with pytest.raises(ConfigError, match=r"--host: '0.0.0.0' is every address of this machine; name the one"):
        make_server(ratings, "0.0.0.0", 0)
    with pytest.raises(ConfigError, match=rf"cannot listen at 127.0.0.1:{port} .*; name another port"):
        make_server(ratings, "127.0.0.1", port)


@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="Debian's chromium is not installed")
def test_votes_by_mouse_and_key_reach_the_right_model_in_a_browser(ratings: Ratings, port: int) -> None:
    with browser_page() as page:
        page.look(width=400)
        page.open(f"http://127.0.0.1:{port}/")
        page.type("Ada")
        page.press("Enter")
        page.wait("!document.getElementById('rating').hidden")
        for number in range(len(PROMPTS)):
            assert page.overflow() == 0
            is_left = "good" in page.run("document.getElementById('left').textContent")
            if number % 2:
                page.press("1" if is_left else "4")
            else:
                page.click(f"[data-choice={'left' if is_left else 'right'}]")
            page.wait(f"document.getElementById('count').textContent.match(/{number + 1} rated/)")
        assert page.run("document.getElementById('count').textContent") == "All 4 rated. Thank you!"
        page.press("ArrowLeft")
        page.press("ArrowLeft")
        assert page.run("document.getElementById('prompt').textContent") == "<b>bold</b>"
        assert "<script>" in page.run("document.querySelector('.sides').textContent")
        assert page.run("document.querySelectorAll('.sides script, .sides img, .prompt b').length") == 0
        assert page.run("document.title") == "Which is better?"
        page.press("3")
        page.wait("document.querySelector('[aria-pressed=true]').dataset.choice === 'both_bad'")
        assert page.told == []
    votes = ratings.store.votes()
    assert sorted(vote.meaning for vote in votes) == ["both_bad", "m1", "m1", "m1"]
    assert {vote.left_model for vote in votes} == {"m1", "m2"}, "sides are shuffled, or this proves nothing"
