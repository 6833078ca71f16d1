"""Errors, intervals, hits and averages, against counts and formulas worked out by hand."""

import re
from statistics import NormalDist

import numpy as np
import pytest
import torch
from tolerances import assert_near

from ramlib.attention import Window
from ramlib.data.cluttered import CanvasBatch, ClutteredDigits
from ramlib.data.house_numbers import HouseNumbers, NumberBatch
from ramlib.experiments import measure
from ramlib.experiments.measure import (
    canvases,
    ensemble,
    error_rate,
    evaluate_digits,
    evaluate_numbers,
    evaluate_pairs,
    hits,
    multiply_adds,
    probabilities,
    share,
    spans,
)
from ramlib.glimpse import GlimpseGrid
from ramlib.interface import Classifier, Rollout
from ramlib.model import RAMConfig, RecurrentAttentionModel
from ramlib.models.reader import Reader, ReaderConfig

SIDE, SIZE = 100, 12


def grid_on(x, y, width, height=None):
    """The grid whose window has its centre at `(x, y)` and these sides, all in pixels."""
    x, y, width = (torch.as_tensor(v, dtype=torch.float64) for v in (x, y, width))
    height = width if height is None else torch.full_like(width, height)
    c_x, c_y = (2 * (place - 0.5) / (SIDE - 1) - 1 for place in (x, y))
    ones = torch.ones_like(c_x)
    delta_x, delta_y = (side.expand_as(c_x) / SIZE for side in (width, height))
    return GlimpseGrid(c_x, c_y, delta_x, delta_y, ones, ones)


class Scripted(Classifier):
    """Answers and looks as it is told: `answers` (B,), `looks` [(x, y, width)] per image.

    The looks are (B, T, 3). Each noisy pass gives the next of `noisy_logits`.
    """

    def __init__(self, answers, looks=None, noisy_logits=()):
        super().__init__((1, SIDE, SIDE), 10)
        self.answers, self.looks = torch.tensor(answers), looks
        self.noisy_logits = list(noisy_logits)
        self.eval()

    def forward(self, images, *, noisy=None):
        batch = len(images)
        final = torch.nn.functional.one_hot(self.answers[:batch], 10).float()
        if noisy:
            final = self.noisy_logits.pop(0)
        # The first look's scores are wrong everywhere, so whoever reads them is found out.
        logits = torch.stack([-100 * final, final], 1)
        self.answers = self.answers[batch:]
        if self.looks is None:
            return Rollout(logits)
        looks, self.looks = self.looks[:batch], self.looks[batch:]
        looks = torch.tensor(looks, dtype=torch.float64)
        grids = grid_on(looks[..., 0], looks[..., 1], looks[..., 2])
        return Rollout(logits, grids, torch.zeros(*grids.shape, 1, SIZE, SIZE))


def batches(labels, corners):
    """Black canvases, two at a time, with digits at `corners` (B, D, 2)."""
    labels, corners = torch.tensor(labels), torch.tensor(corners)
    for start in range(0, len(labels), 2):
        part = slice(start, start + 2)
        images = torch.zeros(len(labels[part]), 1, SIDE, SIDE)
        digits = torch.zeros(corners[part].shape[:2], dtype=torch.int64)
        yield CanvasBatch(images, labels[part], digits, corners[part])


class TestShare:
    @pytest.mark.parametrize(
        ("count", "n", "low", "high"),
        [(10, 100, 5.52, 17.44), (0, 10, 0, 27.75), (10, 10, 72.25, 100), (1, 2, 9.45, 90.55)],
    )
    def test_by_hand(self, count, n, low, high):
        measure = share(count, n)
        assert (measure.value, measure.n) == (100 * count / n, n)
        assert (measure.low, measure.high) == pytest.approx((low, high), abs=0.005)

    @pytest.mark.parametrize("n", [1, 7, 20_000])
    def test_ends_are_the_roots_of_wilsons_equation(self, n):
        """(p - q)^2 = z^2 q (1 - q) / n, solved for q."""
        z2 = NormalDist().inv_cdf(0.975) ** 2
        for count in {0, 1, n // 3, n}:
            p = count / n
            low, high = np.sort(np.roots([1 + z2 / n, -(2 * p + z2 / n), p * p]).real)
            measure = share(count, n)
            assert (measure.low, measure.high) == pytest.approx((100 * low, 100 * high), abs=1e-5)

    def test_interval_holds_the_value_and_stays_within_0_and_100(self):
        for count in range(0, 51):
            measure = share(count, 50)
            assert 0 <= measure.low <= measure.value <= measure.high <= 100

    def test_covers_the_truth_about_95_times_in_100(self):
        counts = np.random.default_rng(0).binomial(500, 0.03, size=4000)
        ends = {count: share(int(count), 500) for count in set(counts)}
        covered = np.mean([ends[count].low <= 3 <= ends[count].high for count in counts])
        assert 0.93 < covered < 0.98

    def test_as_dict_keeps_three_decimals(self):
        kept = share(1, 3).as_dict()
        assert kept == {"value": 33.333, "low": 6.149, "high": 79.234, "n": 3}

    @pytest.mark.parametrize(("count", "n"), [(1, 0), (-1, 5), (6, 5)])
    def test_refuses_more_hits_than_cases(self, count, n):
        message = f"share: 0 <= hits <= n must hold, got {count} of {n}"
        with pytest.raises(ValueError, match=message):
            share(count, n)


class TestCanvases:
    TASK = ClutteredDigits(distractors=1, size=30)

    def test_the_same_ones_every_time_and_as_many_as_asked_for(self):
        first, second = (list(canvases(self.TASK, 7, batch=3)) for _ in range(2))
        assert [len(batch.labels) for batch in first] == [3, 3, 1]
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one.images, other.images)

    def test_fewer_are_the_first_of_more(self):
        few, many = (
            torch.cat([batch.images for batch in canvases(self.TASK, n, batch=3)]) for n in (6, 12)
        )
        assert torch.equal(few, many[:6])

    def test_splits_do_not_share_canvases(self):
        test, validation = (next(canvases(self.TASK, 3, split=s)) for s in ("test", "validation"))
        assert not torch.equal(test.images, validation.images)

    def test_refuses_none(self):
        with pytest.raises(ValueError, match="canvases: images must be at least 1, got 0"):
            next(canvases(self.TASK, 0))


class TestHits:
    """One digit whose box is x in [10, 38], y in [60, 88]."""

    CORNER = (10, 60)

    @pytest.mark.parametrize(
        ("x", "y", "width", "expected"),
        [
            (24, 74, 28, True),  # its own box
            (24, 74, 1, True),  # a point in its middle
            (74, 24, 28, False),  # x and y exchanged
            (10.01, 60.01, 28, True),  # just within its corners
            (37.99, 87.99, 28, True),
            (9.99, 74, 28, False),  # just outside, on each side
            (38.01, 74, 28, False),
            (24, 59.99, 28, False),
            (24, 88.01, 28, False),
            (24, 74, 55.99, True),  # up to twice its size
            (24, 74, 56.01, False),
            (24, 74, 100, False),  # the whole canvas
        ],
    )
    def test_by_hand(self, x, y, width, expected):
        grid = grid_on([[x]], [[y]], [[width]])
        corners = torch.tensor([[self.CORNER]])
        assert hits(grid, corners, SIZE, (SIDE, SIDE)).tolist() == [[[expected]]]

    def test_neither_side_may_be_too_long(self):
        corners = torch.tensor([[self.CORNER]])
        for width, height in ((28, 57), (57, 28)):
            grid = grid_on([[24]], [[74]], [[width]], height)
            assert not hits(grid, corners, SIZE, (SIDE, SIDE)).any()

    def test_the_whole_canvas_is_on_nothing_even_with_the_digit_in_its_middle(self):
        corners = torch.tensor([[[36, 36]]])
        assert not hits(grid_on([[50]], [[50]], [[100]]), corners, SIZE, (SIDE, SIDE)).any()

    def test_every_look_is_held_against_every_digit(self):
        grid = grid_on([[14, 84], [84, 50]], [[14, 14], [14, 50]], [[20, 20], [20, 20]])
        corners = torch.tensor([[[0, 0], [70, 0]], [[0, 0], [70, 0]]])
        expected = [[[True, False], [False, True]], [[False, True], [False, False]]]
        assert hits(grid, corners, SIZE, (SIDE, SIDE)).tolist() == expected


class TestSpans:
    """Two digits with their centres at (24, 74) and (64, 34): 40 apart along each axis."""

    CORNERS = ((10, 60), (50, 20))

    @pytest.mark.parametrize(
        ("x", "y", "width", "height", "expected"),
        [
            (44, 54, 40.02, 40.02, True),  # between them, and just large enough
            (44, 54, 39.98, 40.02, False),
            (44, 54, 40.02, 39.98, False),
            (50, 50, 100, 100, True),  # the whole canvas
            (24, 74, 40, 40, False),  # one of them alone
            (54, 44, 40.02, 40.02, False),  # x and y exchanged
        ],
    )
    def test_by_hand(self, x, y, width, height, expected):
        grid = grid_on([[x]], [[y]], [[width]], height)
        assert spans(grid, torch.tensor([self.CORNERS]), SIZE, (SIDE, SIDE)).item() is expected

    def test_every_look_is_judged_by_itself(self):
        grid = grid_on([[24, 50], [64, 24]], [[74, 50], [34, 74]], [[20, 90], [20, 20]])
        corners = torch.tensor([self.CORNERS] * 2)
        expected = [[False, True], [False, False]]
        assert spans(grid, corners, SIZE, (SIDE, SIDE)).tolist() == expected


class TestEvaluateDigits:
    # canvas: 0 right and found, 1 wrong and found, 2 right and missed, 3 wrong and missed, 4 as 3
    LABELS, ANSWERS = [1, 2, 3, 4, 5], [1, 0, 3, 0, 0]
    CORNERS = (((0, 0),),) * 5
    LOOKS = tuple(((80, 80, 20), last) for last in [(14, 14, 20)] * 2 + [(60, 14, 20)] * 3)

    def test_counts_by_hand(self):
        """The last look decides, and the last look's scores."""
        model = Scripted(self.ANSWERS, self.LOOKS)
        report = evaluate_digits(model, batches(self.LABELS, self.CORNERS))
        assert report.error == share(3, 5)
        assert report.missed == share(3, 5)
        assert report.error_where_missed == share(2, 3)

    def test_without_errors_there_is_nothing_to_explain(self):
        model = Scripted(self.LABELS, self.LOOKS)
        report = evaluate_digits(model, batches(self.LABELS, self.CORNERS))
        assert report.error == share(0, 5)
        assert report.error_where_missed is None

    def test_noisy_passes_decide_the_error_and_not_the_misses(self):
        right = 9 * torch.eye(10)[self.LABELS].float()
        script = [part for rows in right.split(2) for part in (rows, rows)]
        model = Scripted([0] * 15, self.LOOKS, script)
        model.looks = [look for part in (self.LOOKS[:2], self.LOOKS[2:4], self.LOOKS[4:]) for
                       look in part * 3]  # fmt: skip
        report = evaluate_digits(model, batches(self.LABELS, self.CORNERS), runs=2)
        assert report.error == share(0, 5)
        assert report.missed == share(3, 5)

    def test_refuses_a_model_in_training_mode(self):
        model = Scripted(self.ANSWERS, self.LOOKS).train()
        for evaluate in (evaluate_digits, evaluate_pairs):
            with pytest.raises(ValueError, match=re.escape("call model.eval() first")):
                evaluate(model, batches(self.LABELS, self.CORNERS))


class TestEvaluatePairs:
    LABELS, ANSWERS = [1, 2, 3, 4], [1, 0, 0, 4]
    # Boxes that overlap on canvas 2 alone.
    CORNERS = (((0, 0), (70, 70)),) * 2 + (((0, 0), (20, 20)), ((0, 0), (70, 70)))
    FIRST, SECOND = (14, 14, 20), (84, 84, 20)
    LOOKS = ((FIRST, SECOND), (FIRST, FIRST), (FIRST, (34, 34, 20)), (SECOND, FIRST))

    def test_counts_by_hand(self):
        report = evaluate_pairs(
            Scripted(self.ANSWERS, self.LOOKS), batches(self.LABELS, self.CORNERS)
        )
        assert report.error == share(2, 4)
        assert report.error_apart == share(1, 3)
        assert report.error_heaped is None
        assert report.visited_both == share(2, 3)
        assert report.spanned_both == share(0, 3)

    def test_a_heap_shares_half_a_box_or_more(self):
        """14 by 28 shared pixels are half of 28 by 28; 13 by 28 are less; 20 by 20 are more."""
        corners = (((0, 0), (14, 0)), ((0, 0), (15, 0)), ((9, 9), (1, 1)), ((0, 0), (70, 70)))
        model = Scripted(self.ANSWERS, self.LOOKS)
        report = evaluate_pairs(model, batches(self.LABELS, corners))
        assert report.error_heaped == share(1, 2)
        assert report.error_apart == share(0, 1)

    def test_a_window_on_both_digits_spans_them_and_visits_neither(self):
        looks = (((49, 49, 90), self.FIRST),) * 3 + self.LOOKS[3:]
        report = evaluate_pairs(Scripted(self.ANSWERS, looks), batches(self.LABELS, self.CORNERS))
        assert report.spanned_both == share(2, 3)
        assert report.visited_both == share(1, 3)

    def test_a_model_that_does_not_look_visits_nothing(self):
        report = evaluate_pairs(Scripted(self.ANSWERS), batches(self.LABELS, self.CORNERS))
        assert report.error == share(2, 4)
        assert report.visited_both is None
        assert report.spanned_both is None


class ScriptedReader(Reader):
    """Reads what it was told to, whatever it sees; noisy passes read something else."""

    def __init__(self, numbers, noisy=None):
        super().__init__((1, 4, 4), 11)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.scripts = {False: numbers, True: noisy}

    def probabilities(self, images, *, passes=0):
        script = self.scripts[passes > 0]
        read, self.scripts[passes > 0] = script[: len(images)], script[len(images) :]
        return torch.eye(11)[torch.tensor([padded(number) for number in read])]


def padded(number):
    return [*map(int, number), *[10] * (6 - len(number))]


def number_batches(numbers, size):
    for start in range(0, len(numbers), size):
        labels = torch.tensor([padded(number) for number in numbers[start : start + size]])
        batch = len(labels)
        yield NumberBatch(torch.zeros(batch, 1, 4, 4), labels, torch.zeros(batch, 5, 4))


class TestEvaluateNumbers:
    TRUE = ("12", "7", "345", "90210", "44")
    READ = ("12", "71", "35", "90211", "54")

    def report(self, **options):
        model = ScriptedReader(self.READ, self.TRUE).eval()
        return evaluate_numbers(model, number_batches(self.TRUE, 2), **options)

    def test_counts_by_hand(self):
        """Only "12" is right; "71" is too long, "35" too short; of 13 digits 4 are not there."""
        report = self.report()
        assert report.error == share(4, 5)
        # In "35" for "345" the second and the third are wrong: 5 for 4, and nothing for 5.
        assert report.digit_error == share(4, 13)
        assert report.too_long == share(1, 5)
        assert report.too_short == share(1, 5)

    def test_averages_noisy_passes_where_it_is_asked_to(self):
        assert self.report(runs=3).error == share(0, 5)

    def test_refuses_a_model_in_training_mode(self):
        with pytest.raises(ValueError, match="must be in evaluation mode"):
            evaluate_numbers(ScriptedReader(self.READ), number_batches(self.TRUE, 2))


class TestAverages:
    IMAGES = torch.zeros(2, 1, SIDE, SIDE)

    def test_one_pass_is_the_softmax_of_the_last_look(self):
        chances = probabilities(Scripted([3, 7]), self.IMAGES)
        rest = 1 / (9 + np.e)
        expected = np.full((2, 10), rest)
        expected[0, 3] = expected[1, 7] = np.e * rest
        assert_near(chances, expected)

    def test_noisy_passes_average_probabilities_and_not_scores(self):
        first, second = torch.randn(2, 2, 10)
        chances = probabilities(Scripted([0] * 4, None, [first, second]), self.IMAGES, runs=2)
        expected = [
            np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            for logits in (first.numpy(), second.numpy())
        ]
        assert_near(chances, (expected[0] + expected[1]) / 2)

    def test_an_ensemble_is_the_mean_of_its_members(self):
        models = [Scripted([3, 7]), Scripted([3, 1])]
        alone = [probabilities(Scripted(a), self.IMAGES) for a in ([3, 7], [3, 1])]
        assert_near(ensemble(models, self.IMAGES), (alone[0] + alone[1]) / 2)

    def test_refuses_an_empty_ensemble(self):
        with pytest.raises(ValueError, match="ensemble: models must hold at least one model"):
            ensemble([], self.IMAGES)

    def test_noise_moves_the_answer_and_its_absence_does_not(self):
        config = RAMConfig(glimpses=2, size=4, hidden=8, shrink=4, alpha=0.3)
        model = RecurrentAttentionModel(config, (1, 30, 30), 10).eval()
        images = torch.rand(2, 1, 30, 30)
        assert torch.equal(probabilities(model, images), probabilities(model, images))
        noisy = [probabilities(model, images, runs=2) for _ in range(2)]
        assert not torch.equal(*noisy)

    def test_error_rate_by_hand(self):
        answers = iter([[1, 0], [3]])
        measure = error_rate(
            lambda _: torch.nn.functional.one_hot(torch.tensor(next(answers)), 10),
            batches([1, 2, 3], [[[0, 0]]] * 3),
        )
        assert measure == share(1, 3)


def test_multiply_adds_by_hand():
    """T = 2 glimpses of N = 4, 8 units, a 20x20 image halved for the context, 10 classes."""
    t, n, h, side, wide = 2, 4, 8, 20, 256
    config = RAMConfig(glimpses=t, size=n, hidden=h, shrink=2, window=Window(0.5))
    model = RecurrentAttentionModel(config, (1, side, side), 10)
    context = 5 * 5 * 9 * 16 + 3 * 3 * 9 * 16 * 32 + 2 * 2 * 9 * 32 * 64 + 64 * 2 * 2 * h
    clue = h * 3 * h  # projected once
    read = n * side * side + n * side * n
    eye = n * n * wide + wide * h
    first_layer = h * 3 * h  # from the features, at every look
    # What comes from a state is not computed at the first look, where all states are zeros:
    # h2 from h1 and from itself, h1 from itself.
    recalled = 3 * h * 3 * h
    policy = 6 * h
    classify = h * wide + wide * 10
    per_look = read + eye + first_layer + policy + classify
    expected = context + clue + t * per_look + (t - 1) * recalled
    assert multiply_adds(model, torch.zeros(1, 1, side, side)) == expected


def test_multiply_adds_are_the_mean_over_images_each_by_itself():
    class Stops(torch.nn.Module):
        """Looks as often as its image says."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(4, 4))

        def forward(self, images):
            for _ in range(int(images.max())):
                images.flatten(1) @ self.weight

    images = torch.tensor([1.0, 4.0])[:, None, None, None].expand(2, 1, 2, 2)
    assert multiply_adds(Stops(), images) == (1 + 4) * 4 * 4 / 2


@pytest.mark.parametrize(("answer", "objects"), [(10, 1), (0, 6)])
def test_multiply_adds_of_a_reader_are_those_of_the_objects_it_reads(answer, objects):
    t, n, h, side, wide = 2, 4, 8, 20, 256
    config = ReaderConfig(glimpses=t, size=n, hidden=h, context=False, window=Window(0.5))
    reader = config.build((1, side, side), 11).eval()
    with torch.no_grad():
        reader.f_class[-1].bias[answer] = 100
    read = n * side * side + n * side * n
    eye = n * n * wide + wide * h
    classify = h * wide + wide * 11
    per_look = read + eye + h * 3 * h + 6 * h + classify
    recalled = 3 * h * 3 * h
    # Every look is scored to be shown, and an object once more to see whether it is the end.
    expected = objects * (t * per_look + classify) + (objects * t - 1) * recalled
    assert multiply_adds(reader, torch.zeros(3, 1, side, side)) == expected


def test_the_cost_of_a_reader_is_counted_on_the_sample(tmp_path, monkeypatch):
    monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path))
    sample = next(HouseNumbers("sample", "loose").batches("test")).images
    assert torch.equal(measure.examples(HouseNumbers("svhn", "loose")), sample)
    assert measure.examples(ClutteredDigits("digit", size=40)).shape == (1, 1, 40, 40)


def test_the_seed_of_the_test_is_fixed():
    """Records hold counts over these very canvases."""
    assert (measure.TEST_SEED, measure.TEST_IMAGES, measure.BATCH) == (2016, 20_000, 500)


def test_a_record_says_how_many_canvases_of_which_digits_were_measured():
    said = measure.describe(ClutteredDigits("pair"), 123)
    assert said == (
        "cluttered canvases of real MNIST digits (50000 train, 10000 validation, 10000 test), "
        f"made fresh; 123 test canvases, seed {measure.TEST_SEED}"
    )
