"""What every reader does with the text or page of a record before it is a document."""

from data_prep.account import Account
from data_prep.document import Document, Page


def accept_text(text: str, origin: Document, place: str, account: Account) -> Document | None:
    """Return ``origin`` with a text, or None where there is none; NUL characters go, and are counted.

    Args:
        text: what the record holds.
        origin: where it comes from.
        place: file and record, for the account.
        account: told what becomes of it.
    """
    if "\0" in text:
        account.count("read.nul", text.count("\0"))
        text = text.replace("\0", "")
    document = origin.with_text(text)
    try:
        document.utf8  # noqa: B018 - encodes, which fails for a lone surrogate such as JSON's \ud800; kept for later
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X} at character {error.start}"
        account.damaged("lone_surrogate", place, f"no text, it has a lone surrogate ({code}); mend or remove it")
        return None
    if not text or text.isspace():
        account.drop(document, "read", "empty")
        return None
    return document


def accept_utf8(content: bytes, origin: Document, place: str, account: Account) -> Document | None:
    """Return ``origin`` with the text that ``content`` encodes, or None where it is not UTF-8 or empty."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        account.damaged("not_utf8", place, f"not UTF-8 at byte {error.start}; convert it, or take it out")
        return None
    return accept_text(text.removeprefix("\ufeff"), origin, place, account)


def accept_page(content: bytes, encoding: str | None, origin: Document, account: Account) -> Document | None:
    """Return ``origin`` with a page, or None where it is empty."""
    if not content or content.isspace():
        account.drop(origin, "read", "empty")
        return None
    return origin.with_page(Page(content, encoding))


def accept_field(value: str | bytes, is_page: bool, origin: Document, place: str, account: Account) -> Document | None:
    """Return ``origin`` with the text or page of a field, or None where it holds none."""
    if isinstance(value, bytes):
        if is_page:
            return accept_page(value, None, origin, account)
        return accept_utf8(value, origin, place, account)
    document = accept_text(value, origin, place, account)
    if document is None or not is_page:
        return document
    return document.with_page(Page(document.utf8, "utf-8"))


def is_too_large(size: int, limit: int, place: str, account: Account) -> bool:
    """Whether a record is larger than ``max_record_bytes``; if so, the account knows."""
    if size <= limit:
        return False
    account.damaged(
        "record_too_large", place, f"{size} bytes, above max_record_bytes {limit}; raise it, or cut the record"
    )
    return True
