"""Pairs, sums and numbers, against loops and values worked out by hand."""

from itertools import combinations_with_replacement, product

import numpy as np
import pytest
import torch
from tolerances import assert_near

from ramlib.labels import (
    OBJECTS,
    count_digits,
    decode_numbers,
    join,
    mirror,
    pair_label,
    pair_log_probabilities,
    sums_of_pairs,
    to_text,
    until_the_end,
)

E = 10  # the end
LABELS = torch.tensor(
    [
        [3, 1, E, E, E, E],
        [7, E, E, E, E, E],
        [0, 0, 5, 9, 2, E],
        [4, 4, 8, E, E, E],
        [1, E, E, E, E, E],
        [2, 6, 5, 0, E, E],
    ]
)


def chances(*shape):
    return torch.rand(*shape, 10, dtype=torch.float64).softmax(-1)


class TestPairs:
    def test_pairs_number_the_55_unordered_pairs_one_to_one(self):
        pairs = torch.tensor(list(combinations_with_replacement(range(10), 2)))
        assert sorted(pair_label(*pairs.T).tolist()) == list(range(55))

    def test_a_pair_has_one_label_in_either_order(self):
        first, second = torch.tensor(list(product(range(10), repeat=2))).T
        assert torch.equal(pair_label(first, second), pair_label(second, first))

    def test_pairs_are_numbered_as_documented(self):
        first, second = torch.tensor([[0, 0], [0, 1], [1, 1], [0, 2], [9, 9]]).T
        assert pair_label(first, second).tolist() == [0, 1, 2, 3, 54]


def sum_log_probabilities(first, second):
    return sums_of_pairs(pair_log_probabilities(first, second))


class TestWeakLabels:
    def test_pair_is_the_sum_over_both_orders(self):
        p, q = chances(3, 2), chances(3, 2)
        expected = torch.zeros(3, 2, 55, dtype=torch.float64)
        for i in range(10):
            for j in range(10):
                label = pair_label(torch.tensor([i]), torch.tensor([j])).item()
                expected[..., label] += p[..., i] * q[..., j]
        assert_near(pair_log_probabilities(p.log(), q.log()).exp(), expected)

    def test_sum_is_the_convolution_of_the_reads(self):
        p, q = chances(3, 2), chances(3, 2)
        expected = np.array([[np.convolve(p[b, t], q[b, t]) for t in range(2)] for b in range(3)])
        assert_near(sum_log_probabilities(p.log(), q.log()).exp(), expected)

    def test_a_pair_without_doubt_has_a_sum_without_doubt(self):
        label = pair_label(torch.tensor([7]), torch.tensor([4]))
        sure = torch.full((1, 1, 55), -torch.inf).index_fill(2, label, 0.0)
        assert sums_of_pairs(sure).exp()[0, 0].tolist() == [float(s == 11) for s in range(19)]

    @pytest.mark.parametrize("combine", [pair_log_probabilities, sum_log_probabilities])
    def test_probabilities_sum_to_one(self, combine):
        total = combine(chances(4, 1).log(), chances(4, 1).log()).exp().sum(-1)
        assert_near(total, torch.ones(4, 1))

    @pytest.mark.parametrize("combine", [pair_log_probabilities, sum_log_probabilities])
    def test_order_of_reading_does_not_matter(self, combine):
        p, q = chances(4, 1).log(), chances(4, 1).log()
        assert_near(combine(p, q), combine(q, p))

    @pytest.mark.parametrize("combine", [pair_log_probabilities, sum_log_probabilities])
    def test_gradient_stays_finite_for_reads_without_doubt(self, combine):
        logits = torch.tensor([[[200.0] + [0.0] * 9]], requires_grad=True)
        read = logits.log_softmax(-1)
        combine(read, read)[..., 3].sum().backward()
        assert logits.grad.isfinite().all()


# ---- numbers ----


def one_hot(*rows):
    """Certain readings."""
    return torch.eye(11)[torch.tensor(rows)]


def some_chances(batch, seed):
    """Readings of all kinds: of every length, and none certain."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch, OBJECTS, 11, generator=generator)
    scores[..., E] += 1.2
    return scores.softmax(-1).double()


class TestNumbers:
    def test_digits_are_counted_up_to_the_first_end(self):
        labels = [[1, 2, E, E, E, E], [E, 1, 2, E, E, E], [1, 2, 3, 4, 5, E], [1, E, 3, E, E, E]]
        assert count_digits(torch.tensor(labels)).tolist() == [2, 0, 5, 1]

    def test_mirror_reverses_the_digits_and_leaves_the_ends(self):
        rows = zip(LABELS.tolist(), (2, 1, 5, 3, 1, 4), strict=True)
        expected = [row[:n][::-1] + row[n:] for row, n in rows]
        assert mirror(LABELS, count_digits(LABELS)).tolist() == expected

    def test_mirror_twice_is_nothing(self):
        counts = count_digits(LABELS)
        assert torch.equal(mirror(mirror(LABELS, counts), counts), LABELS)

    def test_mirror_moves_whole_distributions(self):
        chances = torch.rand(3, OBJECTS, 11)
        moved = mirror(chances, torch.tensor([0, 2, 6]))
        assert torch.equal(moved[0], chances[0])
        assert torch.equal(moved[1], chances[1][[1, 0, 2, 3, 4, 5]])
        assert torch.equal(moved[2], chances[2].flip(0))

    def test_text(self):
        assert to_text(LABELS) == ["31", "7", "00592", "448", "1", "2650"]


class TestUntilTheEnd:
    def test_after_the_end_nothing_is_left(self):
        chances = some_chances(200, seed=1)
        reading = until_the_end(chances)
        for own, given in zip(reading, chances, strict=True):
            ended = False
            for place in range(OBJECTS):
                assert_near(own[place], torch.eye(11).double()[E] if ended else given[place])
                ended = ended or int(given[place].argmax()) == E

    def test_what_was_not_asked_any_more_is_the_end(self):
        reading = until_the_end(one_hot([4, E], [E, E]))
        assert reading.shape == (2, OBJECTS, 11)
        assert reading.argmax(-1).tolist() == [[4, E, E, E, E, E], [E] * 6]
        assert_near(reading.sum(-1), torch.ones(2, OBJECTS))


class TestDecode:
    def test_takes_the_likeliest_up_to_the_first_end(self):
        chances = some_chances(300, seed=2)
        for labels, given in zip(decode_numbers(chances).tolist(), chances.numpy(), strict=True):
            expected = [int(given[0, :10].argmax())]
            for place in range(1, 5):
                best = int(given[place].argmax())
                if best == E:
                    break
                expected.append(best)
            assert labels == expected + [E] * (6 - len(expected))

    def test_no_number_is_empty(self):
        chances = one_hot([E] * 6)
        chances[0, 0, 7] = 0.1
        assert decode_numbers(chances).tolist() == [[7, E, E, E, E, E]]

    def test_no_number_is_longer_than_five_digits(self):
        assert decode_numbers(one_hot([1, 2, 3, 4, 5, 6])).tolist() == [[1, 2, 3, 4, 5, E]]

    def test_leaves_its_argument_alone(self):
        chances = some_chances(4, seed=3)
        kept = chances.clone()
        decode_numbers(chances)
        assert torch.equal(chances, kept)


class TestJoin:
    def test_readings_that_agree_are_kept(self):
        both = join(one_hot([3, 1, 4, E, E, E]), one_hot([4, 1, 3, E, E, E]))
        assert decode_numbers(both).tolist() == [[3, 1, 4, E, E, E]]

    def test_the_shorter_wins_and_what_was_read_last_falls_away(self):
        """The left-to-right reader saw a digit too many at the right, the other at the left."""
        both = join(
            one_hot([3, 1, 8, E, E, E], [3, 1, E, E, E, E]),
            one_hot([1, 3, E, E, E, E], [1, 3, 9, E, E, E]),
        )
        assert to_text(decode_numbers(both)) == ["31", "31"]

    def test_the_surer_digit_wins(self):
        rightwards, leftwards = one_hot([3, 1, E, E, E, E]), one_hot([1, 8, E, E, E, E])
        rightwards[0, 0] = torch.eye(11)[3] * 0.6 + torch.eye(11)[8] * 0.4
        assert to_text(decode_numbers(join(rightwards, leftwards))) == ["81"]

    def test_is_the_mean_of_both_place_by_place(self):
        rightwards, leftwards = (until_the_end(some_chances(200, seed)) for seed in (4, 5))
        joined = join(rightwards, leftwards)
        texts = zip(
            to_text(decode_numbers(rightwards)), to_text(decode_numbers(leftwards)), strict=True
        )
        lengths = [min(len(one), len(other)) for one, other in texts]
        assert set(lengths) >= {1, 2, 3}
        rows = zip(lengths, rightwards, leftwards, joined, strict=True)
        for n, one, other, both in rows:
            for place in range(OBJECTS):
                if place < n:
                    mean = (one[place, :10] + other[n - 1 - place, :10]).numpy()
                    assert_near(both[place], [*(mean / mean.sum()), 0])
                else:
                    assert_near(both[place], np.eye(11)[E])

    def test_says_the_digits_that_its_chances_say(self):
        both = join(*(until_the_end(some_chances(100, seed)) for seed in (6, 7)))
        assert torch.equal(decode_numbers(both), both.argmax(-1))
