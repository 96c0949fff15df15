"""An article as a site serves it: HTML with menus around, in some encoding, over HTTP."""

import gzip
import random
from dataclasses import dataclass
from html import escape
from typing import Literal

from tests.support.web_phrases import Article, phrases, write_article

Declared = Literal["header", "meta", "none"]

LEGACY_ENCODINGS = {"ru": "windows-1251", "uk": "windows-1251", "ja": "shift_jis", "zh": "gb18030"} | dict.fromkeys(
    ("de", "fr", "es"), "iso-8859-1"
)
FOOTER = "All rights reserved by the harbour history society; copying of single pages is welcome."
_TRANSPORTS = ("plain", "plain", "gzip", "chunked", "chunked gzip")


@dataclass(frozen=True)
class WebPage:
    """A page of the corpus."""

    url: str
    kind: str
    """``article``, or what is planted in it."""

    article: Article
    html: bytes
    encoding: str
    declared: Declared
    """Who names the encoding: the HTTP header, the page, or nobody."""

    transport: str
    """How HTTP carries it: ``plain``, ``gzip``, ``chunked`` or ``chunked gzip``."""

    @property
    def language(self) -> str:
        return self.article.language

    @property
    def text(self) -> str:
        """What an extraction should find."""
        return self.article.text

    @property
    def visible_text(self) -> str:
        """Article and menus, as a WET file has them."""
        menu = "\n".join(phrases(self.language)["town"][:6])
        return f"{menu}\n{self.text}\n{FOOTER}\n" if self.article.paragraphs else ""

    def response(self) -> bytes:
        """Return the HTTP response that brings the page."""
        charset = f"; charset={self.encoding}" if self.declared == "header" else ""
        return http_response(self.html, f"text/html{charset}", self.transport)


def make_page(url: str, kind: str, article: Article, rng: random.Random) -> WebPage:
    """Return the page of an article; two of five pages in languages that had their own encoding use it."""
    legacy = LEGACY_ENCODINGS.get(article.language)
    encoding = legacy if legacy is not None and rng.random() < 0.4 else "utf-8"
    declared: Declared = rng.choice(("header", "meta", "none"))
    html = _html(article, encoding if declared == "meta" else None, rng).encode(encoding)
    return WebPage(url, kind, article, html, encoding, declared, rng.choice(_TRANSPORTS))


def http_response(body: bytes, content_type: str, transport: str) -> bytes:
    """Return status line, headers and body."""
    headers = ["HTTP/1.1 200 OK", f"Content-Type: {content_type}"]
    if "gzip" in transport:
        body = gzip.compress(body, mtime=0)
        headers.append("Content-Encoding: gzip")
    if "chunked" in transport:
        headers.append("Transfer-Encoding: chunked")
        cut = [body[begin : begin + 1000] for begin in range(0, len(body), 1000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in cut) + b"0\r\n\r\n"
    else:
        headers.append(f"Content-Length: {len(body)}")
    return "\r\n".join(headers).encode() + b"\r\n\r\n" + body


def _html(article: Article, charset: str | None, rng: random.Random) -> str:
    language = article.language
    meta = f'<meta charset="{charset}">' if charset else ""
    if not article.paragraphs and not article.title:
        return f"<!DOCTYPE html><html><head>{meta}<title></title></head><body></body></html>"
    towns = rng.sample(phrases(language)["town"], 6)
    menu = "".join(f'<li><a href="/{number}">{escape(town)}</a></li>' for number, town in enumerate(towns))
    others = "".join(f'<li><a href="#">{escape(write_article(language, rng, 1).title)}</a></li>' for _ in range(4))
    body = "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in article.paragraphs)
    return f"""<!DOCTYPE html>
<html lang="{language}" dir="{article.direction}">
<head>{meta}<title>{escape(article.title)}</title>
<style>body {{ margin: 0 }} nav li {{ display: inline }}</style>
<script>var visits = {rng.randint(1, 9999)}; function count() {{ visits += 1; }}</script></head>
<body onload="count()">
<header><div class="logo">{escape(towns[0])}</div></header>
<nav class="menu"><ul>{menu}</ul></nav>
<main><article>
<h1>{escape(article.title)}</h1>
{body}
</article></main>
<aside class="sidebar"><ul>{others}</ul></aside>
<footer class="footer"><p>{escape(FOOTER)}</p></footer>
</body></html>
"""
