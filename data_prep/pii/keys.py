"""Keys and tokens of services, recognised by the prefixes that their issuers gave them to be found by."""

import re

_WORD = rb"[A-Za-z0-9_-]"
_END = rb"(?![A-Za-z0-9_-])"
_KEY = re.compile(
    rb"(?:"
    rb"(?:AKIA|ASIA)(?P<aws>[A-Z0-9]{16})"
    rb"|gh[pousr]_(?P<github>[A-Za-z0-9]{36,255})"
    rb"|github_pat_(?P<pat>[A-Za-z0-9]{22}_[A-Za-z0-9]{59})"
    rb"|glpat-(?P<gitlab>" + _WORD + rb"{20,255})"
    rb"|xox[abceoprs]-(?P<slack>[A-Za-z0-9-]{12,255})|xapp-(?P<xapp>[A-Za-z0-9-]{24,255})"
    rb"|AIza(?P<google>" + _WORD + rb"{35})|GOCSPX-(?P<oauth>" + _WORD + rb"{28})"
    rb"|[sr]k_(?:live|test)_(?P<stripe>[A-Za-z0-9]{16,255})|whsec_(?P<hook>[A-Za-z0-9]{32,255})"
    rb"|sk-(?:proj-|svcacct-|admin-|or-v1-|ant-[a-z]{3,8}[0-9]{2}-)?(?P<model>" + _WORD + rb"{32,255})"
    rb"|xai-(?P<xai>[A-Za-z0-9]{60,100})|gsk_(?P<groq>[A-Za-z0-9]{48,64})|hf_(?P<hub>[A-Za-z0-9]{34})"
    rb"|npm_(?P<npm>[A-Za-z0-9]{36})|pypi-(?P<pypi>AgE" + _WORD + rb"{50,4096})"
    rb"|dop_v1_(?P<ocean>[a-f0-9]{64})|shp(?:at|ca|pa|ss)_(?P<shop>[a-fA-F0-9]{32})|key-(?P<mailgun>[0-9a-f]{32})"
    rb"|SG\.(?P<grid>" + _WORD + rb"{22}\." + _WORD + rb"{43})"
    rb"|(?P<jwt>eyJ" + _WORD + rb"{10,4096}\.eyJ" + _WORD + rb"{6,8192}\." + _WORD + rb"{16,1024})"
    rb")" + _END
)
_MODEL_KEY = re.compile(rb"(?=[^0-9]*[0-9])(?=[^A-Z]*[A-Z])|[0-9a-f]{32,64}\Z")
"""A key of a language model's service, not a long class name such as ``sk-folding-cube-…``."""

_GRID_PREFIX = b"SG."
"""The dot ends a word, so the prefix is another."""

_LEAST_DISTINCT = 6
"""Fewer different characters are a stand-in such as ``ghp_xxxx…``."""

_BLOCK_BEGIN = re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
# Not possessive: of a group, Python before 3.11.5 gets that wrong, and nothing behind it can fail.
_BLOCK_BODY = re.compile(
    rb"(?:[^-]|-(?!-)){0,16384}(?P<end>-----END (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----)?"
)
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\s\\]{0,16384}+")


def find_key(utf8: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Return the bytes of the key or token that begins the word from ``start`` to ``end``, if it is one."""
    start = end - len(utf8[start:end].lstrip(b"_-"))
    if utf8[max(0, start - 3) : start] == _GRID_PREFIX:
        start -= 3
    found = _KEY.match(utf8, start)
    if found is None:
        return None
    secret = found[found.lastgroup or 0]
    if len(set(secret)) < _LEAST_DISTINCT or (found["model"] and not _MODEL_KEY.match(secret)):
        return None
    return found.span()


def find_private_key(utf8: bytes, start: int) -> tuple[int, int] | None:
    """Return the bytes of the private key in PEM or OpenPGP armour that begins at ``start``, cut off or not."""
    begin = _BLOCK_BEGIN.match(utf8, start)
    if begin is None:
        return None
    body = _BLOCK_BODY.match(utf8, begin.end())
    if body is not None and body["end"]:
        return start, body.end()
    rest = _BASE64.match(utf8, begin.end())
    return start, begin.end() + (len(rest[0].rstrip()) if rest else 0)
