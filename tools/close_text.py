"""Compare two outputs of a cell: measured numbers closely, everything else exactly.

Another machine moves the last digits of a training loss, and a chapter must not fail for that.
It must fail when a number is another number, when a shape or a count changes, or a word does.
"""

import re
from decimal import Decimal

RELATIVE = Decimal("0.02")

# A number that is not part of a word, a version or a longer number.
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w|\.\d)")


class CloseText(str):
    """Text that equals other text whose measured numbers are close.

    A number with a decimal point counts as measured: it may differ by 2 % or by one unit of its
    last printed digit, whichever is more. Whole numbers (shapes, counts, labels) must agree. So
    must all other text, but for runs of blanks, which follow the width of the numbers.
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
    if left == right:
        return True
    if _words(left) != _words(right):
        return False
    return all(map(_agree, _NUMBER.findall(left), _NUMBER.findall(right)))


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
