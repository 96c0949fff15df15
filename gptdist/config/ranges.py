"""Numbers of layers and the like, in few words."""

from collections.abc import Iterable


def ranges_text(numbers: Iterable[int]) -> str:
    """Return different ``numbers`` in short, such as ``0-3, 7``; nothing for none."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
