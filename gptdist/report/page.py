"""The page as one file: nothing is loaded from anywhere, and no text of a run can become markup or script."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

_SCRIPTS = ("draw.js", "sections.js", "page.js")

LIVE_PATH = "/records"
"""Where a served page asks for newer records."""


def page(data: Mapping[str, Any], *, is_live: bool = False) -> str:
    """Return the whole page.

    Args:
        data: what ``report_data`` found.
        is_live: the page is served, and asks again for the data.
    """
    names = ", ".join(str(run["name"]) for run in data["runs"])
    script, style = _script(), _text("page.css")
    parts = {
        "POLICY": html.escape(policy(is_live=is_live)),
        "LIVE": LIVE_PATH if is_live else "",
        "TITLE": html.escape(names),
        "STYLE": style,
        "DATA": script_json(data),
        "SCRIPT": script,
    }
    # One pass over the page: what was put in, such as a text with @SCRIPT@ in it, is not looked at again.
    pieces = _text("page.html").split("@")
    return "".join(parts.get(piece, piece) for piece in pieces)


def policy(*, is_live: bool) -> str:
    """Return the page's Content-Security-Policy: its own script and style by their hashes, and no requests."""
    connect = " connect-src 'self';" if is_live else ""
    script, style = _hash(_script()), _hash(_text("page.css"))
    return (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:;{connect} base-uri 'none'; "
        "form-action 'none'"
    )


def script_json(data: object) -> str:
    """Return ``data`` as JSON that can stand in a script element: no ``<`` is left that could end it."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _script() -> str:
    # Each file on its own is strict; one after the other they share their names.
    return "\n".join(_text(name) for name in _SCRIPTS)


def _text(name: str) -> str:
    return files("gptdist.report").joinpath("web", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def sizes(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return in words how much a page shows."""
    lines = sum(one["lines"] for run in runs for one in run["curves"].get("train/loss", []))
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {lines:,} lines of training"
