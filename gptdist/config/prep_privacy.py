"""Personal data in text."""

import re

from gptdist.config.section import Section

_SPECIAL_TOKEN = re.compile(
    r"<[|\uff5c]|[|\uff5c]>|</?(?:s|pad|unk|bos|eos|mask|cls|sep|eod|start_of_turn|end_of_turn)>"
    r"|\[/?(?:INST|CLS|SEP|PAD|UNK|MASK|BOS|EOS)\]|<</?SYS>>",
    re.IGNORECASE,
)
"""How tokenizers in use spell the tokens that are no text."""

_MOST_CHARACTERS = 64


class PlaceholderSection(Section):
    """What stands in the text where personal data stood."""

    email: str = "<EMAIL>"
    ip_address: str = "<IP_ADDRESS>"
    phone_number: str = "<PHONE_NUMBER>"
    card_number: str = "<CARD_NUMBER>"
    bank_account: str = "<BANK_ACCOUNT>"
    secret: str = "<SECRET>"

    def problems(self) -> list[str]:
        """Return every placeholder that cannot stand in a text."""
        bad = []
        for kind, text in self.tree().items():
            where = f"pii.placeholders.{kind}"
            if not text or not text.isprintable() or len(text) > _MOST_CHARACTERS:
                bad.append(
                    f"{where}: {text!r} is not 1 … {_MOST_CHARACTERS} printable characters on one line; "
                    f"use something like <{kind.upper()}>"
                )
            elif _SPECIAL_TOKEN.search(text):
                bad.append(f"{where}: {text!r} spells a special token; use something like <{kind.upper()}>")
        return bad


class PiiSection(Section):
    """What is replaced by a typed placeholder; without this section nothing is."""

    emails: bool = True
    """E-mail addresses."""

    ip_addresses: bool = True
    """IPv4 and IPv6 addresses of the public internet."""

    private_ip_addresses: bool = False
    """Private, loopback, link-local and documentation addresses too, such as 127.0.0.1 and 192.168.0.1."""

    phone_numbers: bool = True
    """Phone numbers with a country code, in common national forms, or after a word such as ``phone``."""

    card_numbers: bool = True
    """Numbers of payment cards: an issuer's prefix and length, and a correct check digit."""

    bank_accounts: bool = True
    """IBANs with correct check digits."""

    secrets: bool = True
    """Keys and tokens of well-known services, private keys, passwords in URLs."""

    placeholders: PlaceholderSection = PlaceholderSection()

    def problems(self) -> list[str]:
        """Return every contradiction."""
        kinds = ("emails", "ip_addresses", "phone_numbers", "card_numbers", "bank_accounts", "secrets")
        bad = self.placeholders.problems()
        if not any(getattr(self, kind) for kind in kinds):
            bad.append(f"pii: {', '.join(kinds)} are all false; set one to true, or remove the section")
        if self.private_ip_addresses and not self.ip_addresses:
            bad.append("pii.private_ip_addresses: true without ip_addresses; set ip_addresses to true, or remove it")
        return bad
