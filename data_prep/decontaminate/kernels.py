"""The compiled loops: text to units, units to hashes of n-grams, hashes to places in a table."""

import numpy as np

from data_prep.compiled import compiled

MOST_UNITS = 255
_ROLLING_PRIME = np.uint64(0x9E3779B97F4A7C15)
_ZERO, _THREE, _SEVEN = np.uint64(0), np.uint64(3), np.uint64(7)
_PRIME = np.uint64(0x00000100000001B3)
_SEED = np.uint64(0xCBF29CE484222325)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT, _ONE = np.uint64(33), np.uint64(1)
"""The last bit of a unit that is a character is 1, of a word 0."""


@compiled
def mix(value: np.uint64) -> np.uint64:
    """Spread a 64-bit value. **Source**: the finalizer of MurmurHash3 (Appleby)."""
    value ^= value >> _SHIFT
    value *= _MIX_1
    value ^= value >> _SHIFT
    value *= _MIX_2
    return value ^ (value >> _SHIFT)


@compiled
def text_units(utf8: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the units of a text.

    Args:
        utf8: its bytes, valid UTF-8.
        table: from ``letter_table``.
    """
    units = np.empty(len(utf8) // 2 + 1, dtype=np.uint64)  # a word takes 2 bytes with its blank, a character 3
    count, i, size = 0, 0, len(utf8)
    word, in_word = _SEED, False
    while i < size:
        lead = utf8[i]
        if lead < 0x80:
            code, width = int(lead), 1
        else:
            code, width = _decode(utf8, i)
        i += width
        entry = table[code] if code < len(table) else np.uint32(code << 2 | (2 if code < 0x32400 else 0))
        kind = entry & np.uint32(3)
        if kind == 1:
            word = (word ^ np.uint64(entry)) * _PRIME
            in_word = True
        elif kind != 3:
            if in_word:
                units[count] = mix(word) & ~_ONE
                count += 1
                word, in_word = _SEED, False
            if kind == 2:
                units[count] = mix(np.uint64(entry) * _PRIME) | _ONE
                count += 1
    if in_word:
        units[count] = mix(word) & ~_ONE
        count += 1
    return units[:count]


@compiled
def _decode(utf8: np.ndarray, i: int) -> tuple[int, int]:
    """Return the character that is not ASCII at ``i``, and how many bytes it takes."""
    lead = int(utf8[i])
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | (int(utf8[i + 1]) & 0x3F), 2
    tail = (int(utf8[i + 1]) & 0x3F) << 6 | (int(utf8[i + 2]) & 0x3F)
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | tail, 3
    return (lead & 0x07) << 18 | tail << 6 | (int(utf8[i + 3]) & 0x3F), 4


@compiled
def window_hashes(units: np.ndarray, word_weight: int, character_weight: int, least_weight: int) -> np.ndarray:
    """Return for each unit the hash of the shortest sequence from it on that weighs ``least_weight``.

    A polynomial modulo 2**64 that is carried from window to window, then mixed.
    **Source**: Karp and Rabin 1987, "Efficient randomized pattern-matching algorithms".
    """
    powers = np.empty(MOST_UNITS + 1, dtype=np.uint64)
    powers[0] = _ONE
    for k in range(MOST_UNITS):
        powers[k + 1] = powers[k] * _ROLLING_PRIME
    hashes = np.empty(len(units), dtype=np.uint64)
    rolling, weight, end = _ZERO, 0, 0
    for i in range(len(units)):
        while weight < least_weight and end < len(units):
            rolling = rolling * _ROLLING_PRIME + units[end]
            weight += character_weight if units[end] & _ONE else word_weight
            end += 1
        if weight < least_weight:
            return hashes[:i]
        hashes[i] = mix(rolling)
        rolling -= units[i] * powers[end - i - 1]
        weight -= character_weight if units[i] & _ONE else word_weight
    return hashes


@compiled
def sequence_hash(units: np.ndarray) -> np.uint64:
    """Return the hash of all units."""
    rolling = _ZERO
    for unit in units:
        rolling = rolling * _ROLLING_PRIME + unit
    return mix(rolling)


@compiled
def set_bits(keys: np.ndarray, bitmap: np.ndarray, shift: int) -> None:
    """Set for each key the bit of a bitmap of 2**(64 - ``shift``) bits that ``look_up`` asks first."""
    for key in keys:
        bit = key >> np.uint64(shift)
        bitmap[np.int64(bit >> _THREE)] |= np.uint8(_ONE << (bit & _SEVEN))


@compiled
def look_up(hashes: np.ndarray, keys: np.ndarray, bitmap: np.ndarray, shift: int) -> np.ndarray:
    """Find which hashes are keys; see ``HashTable.places``."""
    found = np.empty((16, 2), dtype=np.int64)
    count = 0
    for i in range(len(hashes)):
        key = hashes[i]
        bit = key >> np.uint64(shift)
        if not (np.uint64(bitmap[np.int64(bit >> _THREE)]) >> (bit & _SEVEN)) & _ONE:
            continue
        low, high = 0, len(keys)
        while low < high:
            middle = (low + high) // 2
            if keys[middle] < key:
                low = middle + 1
            else:
                high = middle
        if low < len(keys) and keys[low] == key:
            if count == len(found):
                larger = np.empty((2 * count, 2), dtype=np.int64)
                larger[:count] = found
                found = larger
            found[count, 0] = i
            found[count, 1] = low
            count += 1
    return found[:count]
