"""What labels mean: pairs, sums, numbers and their end. Integers and formulas, no weights.

Data and models share these. A pair is unordered; a sum is that of a pair; a number is a row of six
classes, its digits and then the class of the end.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

DIGITS, PAIRS = 10, 55
LONGEST = 5  # digits in a number
STOP = 10  # the class after the last digit
OBJECTS = LONGEST + 1  # the digits of the longest number, and the end

# ---- two digits ----


def pair_label(first: Int64[Tensor, " B"], second: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
    """Number the 55 unordered pairs of digits 0..54: (0,0), (0,1), (1,1), (0,2), ..., (9,9)."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return high * (high + 1) // 2 + low


def pair_log_probabilities(
    first: Float[Tensor, "B T 10"], second: Float[Tensor, "B T 10"]
) -> Float[Tensor, "B T 55"]:
    """Log-probability of each unordered pair: `p1(i) p2(j) + p1(j) p2(i)`, or `p1(i) p2(i)`.

    Args:
        first: log-probabilities of the first read's digit.
        second: of the second's.
    """
    i, j = torch.tril_indices(DIGITS, DIGITS, device=first.device)
    straight, crossed = first[..., i] + second[..., j], first[..., j] + second[..., i]
    joint = torch.where(i == j, straight, torch.logaddexp(straight, crossed))
    return joint[..., pair_label(i, j).argsort()]


def sums_of_pairs(pairs: Float[Tensor, "... 55"]) -> Float[Tensor, "... 19"]:
    """Log-probability of each sum, from those of the unordered pairs that have it.

    Of the pairs of two reads, this makes the convolution of the reads.
    """
    i, j = torch.tril_indices(DIGITS, DIGITS, device=pairs.device)
    of_pair = torch.empty_like(i).scatter_(0, pair_label(i, j), i + j)
    values = torch.arange(2 * DIGITS - 1, device=pairs.device)
    apart = torch.where(of_pair == values[:, None], pairs[..., None, :], -torch.inf)
    return torch.logsumexp(apart, -1)


# ---- numbers: digits as classes, then the class of the end ----


def count_digits(labels: Int64[Tensor, "B objects"]) -> Int64[Tensor, " B"]:
    """Digits before the first end."""
    return ((labels == STOP).cumsum(1) == 0).sum(1)


def mirror(rows: Tensor, counts: Int64[Tensor, " B"]) -> Tensor:
    """Reverse the first `counts[b]` entries of each row; the others stay where they are."""
    place = torch.arange(rows.shape[1], device=rows.device)
    counts = counts[:, None]
    source = torch.where(place < counts, counts - 1 - place, place)
    return rows[torch.arange(rows.shape[0], device=rows.device)[:, None], source]


def to_text(labels: Int64[Tensor, "B objects"]) -> list[str]:
    """The numbers as strings."""
    rows = zip(labels.tolist(), count_digits(labels).tolist(), strict=True)
    return ["".join(map(str, row[:count])) for row, count in rows]


# ---- how sure: for each object, a distribution over the digits and the end ----


def until_the_end(
    chances: Float[Tensor, "B objects classes"],
) -> Float[Tensor, "B all_objects classes"]:
    """Make a reading of six objects out of what one pass said.

    A pass is not taught what to say after the end, and need not go on. There, the end is certain.
    """
    objects, classes = chances.shape[1:]
    counts = count_digits(chances.argmax(-1))
    place = torch.arange(OBJECTS, device=chances.device)
    beyond = (place > counts[:, None]) | (place >= objects)
    padded = F.pad(chances, (0, 0, 0, OBJECTS - objects))
    end = F.one_hot(torch.tensor(STOP), classes).to(chances)
    return torch.where(beyond[..., None], end, padded)


def decode_numbers(chances: Float[Tensor, "B objects classes"]) -> Int64[Tensor, "B objects"]:
    """The likeliest digits before the first end. A number has one digit at least, and at most five.

    Args:
        chances: of six objects.
    """
    chances = chances.clone()
    chances[:, 0, STOP] = -torch.inf
    chances[:, LONGEST, :STOP] = -torch.inf
    labels = chances.argmax(-1)
    place = torch.arange(labels.shape[1], device=labels.device)
    return labels.masked_fill(place > count_digits(labels)[:, None], STOP)


def join(
    rightwards: Float[Tensor, "B objects classes"], leftwards: Float[Tensor, "B objects classes"]
) -> Float[Tensor, "B objects classes"]:
    """Join two readings of the same numbers: the shorter length wins, the chances are averaged.

    In a number of n digits, place i from the left is place n - 1 - i from the right. If a reader
    saw a digit too many, it saw it last, and that one falls away.

    Args:
        rightwards: read from left to right.
        leftwards: read from right to left, in that order.

    Returns:
        From left to right.

    Section IV-B, Semeniuta & Barth (2016).
    """
    counts = torch.minimum(*(count_digits(decode_numbers(way)) for way in (rightwards, leftwards)))
    both = (rightwards + mirror(leftwards, counts)) / 2
    # The length is settled: before it are digits, after it is nothing.
    both[..., STOP] = 0
    both = both / both.sum(-1, keepdim=True).clamp(min=torch.finfo(both.dtype).tiny)
    beyond = torch.arange(OBJECTS, device=both.device) >= counts[:, None]
    end = F.one_hot(torch.tensor(STOP), both.shape[-1]).to(both)
    return torch.where(beyond[..., None], end, both)


def sequence_loss(
    scores: Float[Tensor, "B objects classes"], targets: Int64[Tensor, "B objects"]
) -> Float[Tensor, ""]:
    """Negative log-likelihood of a number, its end included: the mean over the batch.

    Args:
        scores: of six objects.
        targets: digits in the order of reading, then 10s, of which the first is asked for.
    """
    place = torch.arange(OBJECTS, device=targets.device)
    targets = targets.masked_fill(place > count_digits(targets)[:, None], -100)
    summed = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="sum")
    return summed / len(targets)
