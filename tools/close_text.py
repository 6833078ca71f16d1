"""Compare two outputs of a cell: measured numbers closely, everything else exactly.

Another machine moves the last digits of a training loss, and a chapter must not fail for that.
It must fail when a number is another number, when a shape or a count changes, or a word does.

What a chapter trains differs from one machine to the next as from one seed to the next. So a
chapter prints its band, `error 10.6 % here; 8 to 14 % elsewhere`, and any number in the band
agrees.
"""

import re
from decimal import Decimal

RELATIVE = Decimal("0.02")

# A number that is not part of a word, a version or a longer number.
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w|\.\d)")


# "10.6 % here; 8 to 14 % elsewhere", "3 of 4 lost here; 1 to 4 elsewhere"
BANDED = re.compile(
    r"(?P<value>-?\d+(?:\.\d+)?)(?P<unit>[^\d;\n]*(?: of \d+[^\d;\n]*)?) here; "
    r"(?P<low>-?\d+(?:\.\d+)?) to (?P<high>-?\d+(?:\.\d+)?)"
)


def in_band(match: re.Match) -> bool:
    """Whether the number that was measured lies in the band printed after it."""
    low, value, high = (Decimal(match[name]) for name in ("low", "value", "high"))
    return low <= value <= high


class CloseText(str):
    """Text that equals other text whose measured numbers are close.

    A number with a decimal point counts as measured: it may differ by 2 % or by one unit of its
    last printed digit, whichever is more. Whole numbers (shapes, counts, labels) must agree. So
    must all other text, but for runs of blanks, which follow the width of the numbers. A number
    that is followed by its band agrees with any other in the same band.
    """

    __slots__ = ()
    __hash__ = None  # closeness is not transitive, so no hash could agree with it

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return NotImplemented
        return is_close(str(self), str(other))

    def __ne__(self, other: object) -> bool:  # str has its own, which would win
        return not self == other


def is_close(left: str, right: str) -> bool:
    """Whether two texts agree up to small differences in their measured numbers."""
    left, right = (BANDED.sub(_forget, text) for text in (left, right))
    if left == right:
        return True
    if _words(left) != _words(right):
        return False
    return all(map(_agree, _NUMBER.findall(left), _NUMBER.findall(right)))


def _forget(match: re.Match) -> str:
    return match[0][len(match["value"]) :] if in_band(match) else match[0]


def _words(text: str) -> str:
    return re.sub(r"[ \t]+", " ", _NUMBER.sub(" # ", text))


def _agree(left: str, right: str) -> bool:
    if left == right:
        return True
    if "." not in left or "." not in right:
        return False
    a, b = Decimal(left), Decimal(right)
    unit = min(Decimal(1).scaleb(x.as_tuple().exponent) for x in (a, b))
    return abs(a - b) <= max(RELATIVE * max(abs(a), abs(b)), unit)
