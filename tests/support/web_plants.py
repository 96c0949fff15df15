"""What the test corpus hides among its articles: personal data, spam, leaks, and what is too little."""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.support.web_phrases import Article, write_article

BOILERPLATE = (
    "This page belongs to the open collection of the harbour history society, which prints a new part of it in every "
    "season and sends it to all of its members without charge."
)
"""A paragraph that stands in several articles."""

BLOCKED_DOMAINS = ("bad-harbour.example", "cheap-boats.example")
UNSUITABLE_WORDS = ("glorbish", "snarvok", "plimfoot")
"""No language has them."""


@dataclass(frozen=True)
class Planted:
    """An article with something in it."""

    article: Article
    strings: tuple[str, ...] = ()
    """What was put in, where it is a string to be found."""


Plant = Callable[[Article, random.Random], Planted]


def luhn_digit(digits: str) -> str:
    """Return the check digit for ``digits``."""
    doubled = (int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(digits)))
    return str(-sum(value - 9 * (value > 9) for value in doubled) % 10)


def _sentence(template: str, make: Callable[[random.Random], str]) -> Plant:
    def plant(article: Article, rng: random.Random) -> Planted:
        value = make(rng)
        at = rng.randint(0, len(article.paragraphs) - 1)
        mixed = f"{article.paragraphs[at]} {template.format(value)}"
        paragraphs = (*article.paragraphs[:at], mixed, *article.paragraphs[at + 1 :])
        return Planted(replace(article, paragraphs=paragraphs), (value,))

    return plant


def _paragraph(text: str) -> Plant:
    def plant(article: Article, rng: random.Random) -> Planted:
        return Planted(article.with_paragraph(text, rng.randint(1, len(article.paragraphs))))

    return plant


def _instead(make: Callable[[Article, random.Random], tuple[str, ...]]) -> Plant:
    def plant(article: Article, rng: random.Random) -> Planted:
        return Planted(replace(article, paragraphs=make(article, rng)))

    return plant


def _email(rng: random.Random) -> str:
    return (
        f"{rng.choice(('martha', 'peter', 'nora'))}.{rng.choice(('e', 'h', 'f'))}{rng.randint(10, 99)}@post.harbour.org"
    )


def _phone(rng: random.Random) -> str:
    """Return a number that is reserved for fiction."""
    last = rng.randint(100, 199)
    return rng.choice((f"+1 212 555 0{last}", f"+44 20 7946 0{last}", f"(415) 555-0{last}"))


def _card(rng: random.Random) -> str:
    digits = "4" + "".join(rng.choices(string.digits, k=14))
    digits += luhn_digit(digits)
    return " ".join(digits[begin : begin + 4] for begin in range(0, 16, 4))


def _wrong_card(rng: random.Random) -> str:
    card = _card(rng)
    return card[:-1] + str((int(card[-1]) + rng.randint(1, 9)) % 10)


def _aws_key(rng: random.Random) -> str:
    return "AKIA" + "".join(rng.choices(string.ascii_uppercase + "234567", k=16))


def _github_token(rng: random.Random) -> str:
    return "ghp_" + "".join(rng.choices(string.ascii_letters + string.digits, k=36))


def _shouting(article: Article, rng: random.Random) -> tuple[str, ...]:
    return tuple("The cheap boats of the harbour are to be had today and " * rng.randint(12, 16) for _ in range(3))


def _symbols(article: Article, rng: random.Random) -> tuple[str, ...]:
    signs = ("#", "...", "#", "the", "of", "boats", "with", "harbour")
    return tuple(" ".join(rng.choices(signs, k=80)) for _ in range(4))


def _code(article: Article, rng: random.Random) -> tuple[str, ...]:
    line = f"To move it one writes function sail(boat) {{ return boat.speed * {rng.randint(2, 9)}; }} and waits."
    return (*article.paragraphs, line)


PLANTS: dict[str, Plant] = {
    "repeated_paragraph": _paragraph(BOILERPLATE),
    "email": _sentence("Write to {} if you own one of these maps.", _email),
    "ip_address": _sentence(
        "The catalogue was last served from {} in the summer.", lambda r: f"81.2.69.{r.randint(1, 254)}"
    ),
    "private_ip_address": _sentence("At home it is found at {} as usual.", lambda r: f"192.168.7.{r.randint(1, 254)}"),
    "phone_number": _sentence("The phone in the reading room is {} on weekdays.", _phone),
    "card_number": _sentence("Somebody left a card with the number {} on the desk.", _card),
    "wrong_card_number": _sentence("The box bears the number {} on its lid.", _wrong_card),
    "aws_key": _sentence("A note on the wall says {} and nothing else.", _aws_key),
    "github_token": _sentence("Below it somebody wrote {} with a pencil.", _github_token),
    "word_repetition": _instead(_shouting),
    "symbol_wall": _instead(_symbols),
    "lorem_ipsum": _paragraph("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor."),
    "javascript_notice": _paragraph("Please enable JavaScript in your browser to see the whole of this page."),
    "curly_brackets": _instead(_code),
    "blocked_domain": lambda article, rng: Planted(article),
    "unsuitable": _sentence("They called it a {} and laughed about it.", lambda r: r.choice(UNSUITABLE_WORDS)),
    "too_short": _instead(lambda article, rng: (write_article("en", rng, 1).paragraphs[0],)),
    "empty": lambda article, rng: Planted(Article(article.language, "", ())),
}
"""What can be put into an English article; duplicates and leaks need to know other texts."""
