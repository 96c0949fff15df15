"""The local server that raters talk to: one page, pairs as JSON, votes in. No torch.

What a model wrote is not to be trusted, nor is any other page in the rater's browser: requests must be addressed to
this server by name, votes must come from its own page with its token, and the page's policy lets no other script run.
"""

import json
import secrets
from collections.abc import Callable, Sequence
from email.message import Message
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gptdist.compress.rate.page import PAGE, SCRIPT, STYLE
from gptdist.compress.rate.pairs import Pair
from gptdist.compress.rate.store import CHOICES, Store
from gptdist.errors import ConfigError
from gptdist.local_server import Answer, LocalServer, RefusedError

MOST_BODY_BYTES = 4096
MOST_RATER_CHARACTERS = 60

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TOKEN_MARK = "@TOKEN@"


class Ratings:
    """What the server knows: pairs, votes, and who may ask."""

    def __init__(self, pairs: Sequence[Pair], store: Store, *, seed: int) -> None:
        """Serve ``pairs``, whose sides follow from ``seed``, and keep votes in ``store``."""
        self.pairs = {pair.key: pair for pair in pairs}
        self.store, self.seed = store, seed
        self.token = secrets.token_urlsafe(24)
        self.names: frozenset[str] = frozenset()
        """Values of the header ``Host`` that mean this server."""

    def state(self, rater: str) -> dict[str, Any]:
        """Return all pairs as ``rater`` sees them, with what the rater has chosen."""
        models = {frozenset(pair.texts) for pair in self.pairs.values()}
        chosen = {
            vote.prompt_hash: vote.choice
            for vote in self.store.votes()
            if vote.rater == rater and frozenset((vote.left_model, vote.right_model)) in models
        }
        pairs = [pair.shown(rater, self.seed) for pair in self.pairs.values()]
        return {"pairs": [pair | {"choice": chosen.get(pair["key"])} for pair in pairs]}

    def vote(self, sent: Any) -> dict[str, Any]:
        """Keep a vote that a page sent.

        Raises:
            RefusedError: it is not one.
        """
        if not isinstance(sent, dict) or set(sent) != {"key", "rater", "choice"}:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "a vote has key, rater and choice")
        rater = checked_rater(sent["rater"])
        pair = self.pairs.get(sent["key"]) if isinstance(sent["key"], str) else None
        if pair is None or sent["choice"] not in CHOICES:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "no such prompt, or no such choice")
        self.store.add_vote(pair.vote(rater, sent["choice"], self.seed))
        return {"kept": True}


def checked_rater(name: object) -> str:
    """Return a rater's name.

    Raises:
        RefusedError: it is none.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > MOST_RATER_CHARACTERS or not name.isprintable():
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"a rater's name has 1 to {MOST_RATER_CHARACTERS} characters")
    return name.strip()


def make_server(ratings: Ratings, host: str, port: int) -> LocalServer:
    """Return a server that listens; ``serve_forever`` runs it.

    Raises:
        ConfigError: the address cannot be listened at, or is no one machine's.
    """
    if host in {"", "0.0.0.0", "::"}:
        raise ConfigError([f"--host: '{host}' is every address of this machine; name the one that raters type"])
    server = LocalServer(
        host,
        port,
        _POLICY,
        lambda path: _get(ratings, path),
        lambda request: _post(ratings, request.path, request.headers, request.rfile.read),
    )
    ratings.names = server.names
    return server


def _get(ratings: Ratings, path: str) -> Answer:
    parts = urlsplit(path)
    files = {
        "/": ("text/html", PAGE.replace(_TOKEN_MARK, ratings.token)),
        "/rate.js": ("text/javascript", SCRIPT),
        "/rate.css": ("text/css", STYLE),
        "/favicon.ico": ("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"/>'),
    }
    if parts.path in files:
        return HTTPStatus.OK, *files[parts.path]
    if parts.path == "/pairs":
        rater = checked_rater(parse_qs(parts.query).get("rater", [""])[0])
        return HTTPStatus.OK, "application/json", json.dumps(ratings.state(rater))
    raise RefusedError(HTTPStatus.NOT_FOUND, "no such page")


def _post(ratings: Ratings, path: str, headers: Message, read: Callable[[int], bytes]) -> Answer:
    if path != "/votes":
        raise RefusedError(HTTPStatus.NOT_FOUND, "no such page")
    origin = headers.get("Origin")
    if origin not in {f"http://{name}" for name in ratings.names}:
        raise RefusedError(HTTPStatus.FORBIDDEN, "a vote comes from this server's own page")
    if not secrets.compare_digest(headers.get("X-Token", "").encode(), ratings.token.encode()):
        raise RefusedError(HTTPStatus.FORBIDDEN, "the page is of an earlier start of the server; load it anew")
    length = headers.get("Content-Length", "")
    if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a vote has at most {MOST_BODY_BYTES} bytes")
    try:
        sent = json.loads(read(int(length)))
    except (ValueError, RecursionError):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "a vote is JSON") from None
    return HTTPStatus.OK, "application/json", json.dumps(ratings.vote(sent))
