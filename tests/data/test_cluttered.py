"""Cluttered digits against the protocol of mnist-cluttered, replayed in numpy."""

import re
from itertools import product

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from ramlib.data import cluttered, mnist
from ramlib.data.cluttered import (
    TEST_SEED,
    CanvasBatch,
    ClutteredDigits,
    boxes_overlap,
    hits,
    spans,
)
from ramlib.interface import Rollout

TARGETS = ("digit", "pair", "sum")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def one_of_each(monkeypatch):
    """A source of ten digits, one of each class, so that a label tells which image it was."""
    source = mnist.load("validation")
    first = [int((source.labels == label).nonzero()[0, 0]) for label in range(10)]
    digits = mnist.Digits(source.images[first], source.labels[first])
    monkeypatch.setattr(mnist, "load", lambda split, device: digits)
    return digits.images.numpy() / 255


def replay(images, size, pieces, digits):
    """The protocol for one canvas: each piece added and clipped, then each digit.

    `pieces` lists (digit, its x, its y, canvas x, canvas y), and `digits` (digit, x, y).
    """
    canvas = np.zeros((size, size))
    for which, from_x, from_y, x, y in pieces:
        canvas[y : y + 8, x : x + 8] += images[which][from_y : from_y + 8, from_x : from_x + 8]
        canvas = np.clip(canvas, 0, 1)
    for which, x, y in digits:
        canvas[y : y + 28, x : x + 28] += images[which]
        canvas = np.clip(canvas, 0, 1)
    return canvas


class TestCanvas:
    @pytest.mark.parametrize("target", TARGETS)
    def test_digits_stand_where_corners_say(self, target, one_of_each):
        task = ClutteredDigits(target, distractors=0)
        batch = task.sample(16, generator=seeded())
        placed = np.concatenate([batch.digits[..., None], batch.corners], -1)
        for image, digits in zip(batch.images.numpy(), placed, strict=True):
            np.testing.assert_allclose(image[0], replay(one_of_each, 100, [], digits), atol=1e-6)

    @pytest.mark.parametrize("distractors", [1, 8, 60])
    def test_replays_the_protocol_for_the_same_draws(self, distractors, one_of_each, monkeypatch):
        """Sixty pieces overlap everywhere, so this also shows where the clip comes."""
        randint, drawn = torch.randint, {}

        def recorder(high, shape, **keywords):
            return drawn.setdefault((high, *shape), randint(high, shape, **keywords))

        monkeypatch.setattr(torch, "randint", recorder)
        batch = ClutteredDigits("pair", distractors).sample(6, generator=seeded())
        which, taken, placed = (
            drawn[key].numpy()
            for key in ((10, 6, distractors), (21, 6, distractors, 2), (93, 6, distractors, 2))
        )
        pieces = np.concatenate([which[..., None], taken, placed], -1)
        digits = np.concatenate([batch.digits[..., None], batch.corners], -1)
        for image, these, those in zip(batch.images.numpy(), pieces, digits, strict=True):
            np.testing.assert_allclose(image[0], replay(one_of_each, 100, these, those), atol=1e-6)

    def test_a_fragment_is_an_8x8_piece_of_a_digit(self, one_of_each):
        """Searched for by brute force in all pieces of the source, without knowing the draws."""
        digits = torch.from_numpy(one_of_each * 255).round().byte()
        pieces = digits.unfold(1, 8, 1).unfold(2, 8, 1).reshape(-1, 64).numpy()
        known = {piece.tobytes() for piece in pieces}
        batch = ClutteredDigits(distractors=1).sample(40, generator=seeded())
        grey = (batch.images[:, 0] * 255).round().byte().numpy()
        found = 0
        for image, (x, y) in zip(grey, batch.corners[:, 0].tolist(), strict=True):
            image[y : y + 28, x : x + 28] = 0
            rows, columns = image.any(1).nonzero()[0], image.any(0).nonzero()[0]
            if not len(rows):
                continue  # a dark piece
            top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
            if x - right <= 8 and left - x <= 35 and y - bottom <= 8 and top - y <= 35:
                continue  # the digit's box may hide a part of it
            windows = product(
                range(max(bottom - 7, 0), min(top, 92) + 1),
                range(max(right - 7, 0), min(left, 92) + 1),
            )
            assert any(image[r : r + 8, c : c + 8].tobytes() in known for r, c in windows)
            found += 1
        assert found >= 10

    def test_pixels_are_clipped_to_one(self):
        images = ClutteredDigits("pair", distractors=100).sample(4, generator=seeded()).images
        assert images.min() == 0
        assert images.max() == 1

    def test_without_distractors_the_background_is_black(self):
        batch = ClutteredDigits("sum", distractors=0).sample(8, generator=seeded())
        for image, corners in zip(batch.images[:, 0].clone(), batch.corners.tolist(), strict=True):
            for x, y in corners:
                image[y : y + 28, x : x + 28] = 0
            assert image.abs().max() == 0

    @pytest.mark.parametrize("size", [28, 60, 100])
    def test_shapes_and_types(self, size):
        task = ClutteredDigits("pair", size=size)
        batch = task.sample(3, generator=seeded())
        assert batch.images.shape == (3, *task.image_shape) == (3, 1, size, size)
        assert batch.images.dtype == torch.float32
        assert batch.corners.shape == (3, 2, 2)
        assert batch.digits.shape == (3, 2)
        assert {batch.labels.dtype, batch.digits.dtype, batch.corners.dtype} == {torch.int64}


class TestOverlappingDigits:
    def test_all_second_digits_are_thrown_onto_the_first(self):
        corners = ClutteredDigits("pair", overlapping=1.0).sample(400, generator=seeded()).corners
        away = (corners[:, 1] - corners[:, 0]).abs()
        assert away.max() == 14
        assert corners.min() >= 0
        assert corners.max() <= 72
        assert boxes_overlap(corners).min() >= 0.25

    def test_a_share_of_them(self):
        """A canvas in six overlaps so by chance: (14.5 / 73) ** 2 each way, less what juts out."""
        corners = (
            ClutteredDigits("sum", 0, overlapping=0.25).sample(4000, generator=seeded()).corners
        )
        close = ((corners[:, 1] - corners[:, 0]).abs() <= 14).all(-1).double().mean()
        by_chance = ((73 * 29 - 14 * 15) / 73**2) ** 2
        # Four standard errors.
        assert abs(close - (0.25 + 0.75 * by_chance)) < 4 * 0.5 / 4000**0.5

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_what_is_measured_on_is_left_to_chance(self, split):
        plain, overlapping = ClutteredDigits("pair"), ClutteredDigits("pair", overlapping=1.0)
        ours, theirs = (t.sample(8, split=split, generator=seeded()) for t in (plain, overlapping))
        assert torch.equal(ours.images, theirs.images)

    def test_label_and_boxes_follow(self, one_of_each):
        batch = ClutteredDigits("pair", 0, overlapping=1.0).sample(8, generator=seeded())
        placed = np.concatenate([batch.digits[..., None], batch.corners], -1)
        for image, digits in zip(batch.images.numpy(), placed, strict=True):
            np.testing.assert_allclose(image[0], replay(one_of_each, 100, [], digits), atol=1e-6)

    @pytest.mark.parametrize(
        ("target", "overlapping"), [("pair", -0.1), ("sum", 1.5), ("digit", 0.5)]
    )
    def test_refuses_shares_that_cannot_be(self, target, overlapping, as_installed):
        with pytest.raises(ValueError, match=f"overlapping must be in .*got {overlapping} for"):
            ClutteredDigits(target, overlapping=overlapping)


class TestCentredDigits:
    def test_all_stand_in_the_middle_and_are_the_same_digits(self):
        centred, plain = (
            ClutteredDigits(centred=True, distractors=0),
            ClutteredDigits(distractors=0),
        )
        theirs, ours = (t.sample(8, generator=seeded()) for t in (plain, centred))
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.corners, torch.full((8, 1, 2), 36))
        for canvas, other, (x, y) in zip(
            ours.images[:, 0], theirs.images[:, 0], theirs.corners[:, 0].tolist(), strict=True
        ):
            assert torch.equal(canvas[36:64, 36:64], other[y : y + 28, x : x + 28])

    def test_refuses_two_digits(self):
        with pytest.raises(ValueError, match=r"only a single digit can be centred, got .*'pair'"):
            ClutteredDigits("pair", centred=True)


class TestDraws:
    def test_the_same_seed_gives_the_same_batch(self):
        first, second = (ClutteredDigits("pair").sample(8, generator=seeded(7)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_a_generator_never_repeats_itself(self):
        generator = seeded()
        first, second = (ClutteredDigits().sample(8, generator=generator) for _ in range(2))
        assert not torch.equal(first.corners, second.corners)

    def test_leaves_the_global_generator_alone(self):
        before = torch.get_rng_state()
        ClutteredDigits().sample(2, generator=seeded())
        assert torch.equal(torch.get_rng_state(), before)

    def test_corners_are_uniform_over_all_places_that_hold_the_digit(self):
        """On a 31-pixel canvas there are four by four; each expects 500 of 8,000."""
        batch = ClutteredDigits("digit", distractors=0, size=31).sample(8000, generator=seeded())
        x, y = batch.corners[:, 0].T
        counts = torch.bincount(4 * y + x, minlength=16).double()
        assert len(counts) == 16
        assert ((counts - 500) ** 2 / 500).sum() < 37.7  # chi-square, 15 degrees, p = 0.001

    def test_corners_reach_both_edges_of_the_full_canvas(self):
        batch = ClutteredDigits("pair", distractors=0).sample(600, generator=seeded())
        assert batch.corners.amin((0, 1)).tolist() == [0, 0]
        assert batch.corners.amax((0, 1)).tolist() == [72, 72]

    @pytest.mark.parametrize("edge", [0, 92])
    def test_fragments_reach_the_edges_of_the_canvas(self, edge, monkeypatch):
        """White digits show it: pieces of them leave light in the canvas's own corner."""
        white = mnist.Digits(torch.full((2, 28, 28), 255, dtype=torch.uint8), torch.arange(2))
        monkeypatch.setattr(mnist, "load", lambda split, device: white)
        images = ClutteredDigits(distractors=60).sample(60, generator=seeded()).images
        assert images[:, 0, edge + 7 * (edge > 0), :].max() == 1
        assert images[:, 0, :, edge + 7 * (edge > 0)].max() == 1

    def test_every_digit_is_drawn_alike(self):
        source = mnist.load("train").labels.bincount() / 50_000
        batch = ClutteredDigits("pair", distractors=0, size=28).sample(6000, generator=seeded())
        shares = batch.digits.flatten().bincount() / 12_000
        assert (shares - source).abs().max() < 0.012  # four standard deviations

    def test_the_two_digits_are_drawn_apart(self):
        batch = ClutteredDigits("pair", distractors=0, size=40).sample(4000, generator=seeded())
        pairs = torch.cat([batch.digits, batch.corners.flatten(1)], 1).double()
        off_diagonal = torch.corrcoef(pairs.T) - torch.eye(6, dtype=torch.float64)
        assert off_diagonal.abs().max() < 0.065  # four standard deviations of 1 / sqrt(4000)


class TestSplits:
    @pytest.mark.parametrize("split", mnist.SPLITS)
    def test_reads_the_split_it_is_asked_for_and_no_other(self, split, monkeypatch):
        asked, load = [], mnist.load
        monkeypatch.setattr(mnist, "load", lambda *a: asked.append(a[0]) or load(*a))
        ClutteredDigits("pair").sample(2, split=split, generator=seeded())
        assert asked == [split]

    def test_training_images_are_made_from_the_training_split_unless_asked(self, monkeypatch):
        asked, load = [], mnist.load
        monkeypatch.setattr(mnist, "load", lambda *a: asked.append(a[0]) or load(*a))
        ClutteredDigits().sample(2, generator=seeded())
        assert asked == ["train"]

    @pytest.mark.parametrize("split", mnist.SPLITS)
    def test_no_digit_of_another_split_reaches_an_image(self, split):
        """Digits cut out of the canvases are, to the pixel, digits of that split alone."""
        known = {
            name: {image.tobytes() for image in mnist.load(name).images.numpy()}
            for name in mnist.SPLITS
        }
        batch = ClutteredDigits(distractors=0).sample(64, split=split, generator=seeded())
        grey = (batch.images[:, 0] * 255).round().byte()
        for image, (x, y) in zip(grey, batch.corners[:, 0].tolist(), strict=True):
            crop = image[y : y + 28, x : x + 28].contiguous().numpy().tobytes()
            assert [name for name in known if crop in known[name]] == [split]

    def test_no_fragment_of_another_split_reaches_an_image(self, monkeypatch):
        """Whole splits painted in one grey each: the canvases hold the asked split's grey only."""
        greys = {"train": 10, "validation": 20, "test": 40}

        def painted(split, device):
            grey = torch.full((5, 28, 28), greys[split], dtype=torch.uint8)
            return mnist.Digits(grey, torch.arange(5))

        monkeypatch.setattr(mnist, "load", painted)
        for split, grey in greys.items():
            task = ClutteredDigits("pair", distractors=3)
            images = task.sample(32, split=split, generator=seeded()).images
            layers = images * 255 / grey
            torch.testing.assert_close(layers, layers.round(), atol=1e-4, rtol=0)
            assert 1 <= layers.max() <= 5


class TestLabels:
    @pytest.mark.parametrize(
        ("target", "label"),
        [
            ("digit", lambda digits: digits[0]),
            ("pair", lambda digits: max(digits) * (max(digits) + 1) // 2 + min(digits)),
            ("sum", sum),
        ],
    )
    def test_labels_follow_from_the_digits(self, target, label):
        batch = ClutteredDigits(target, size=28).sample(300, generator=seeded())
        assert batch.labels.tolist() == [label(digits) for digits in batch.digits.tolist()]

    @pytest.mark.parametrize(("target", "classes"), [("digit", 10), ("pair", 55), ("sum", 19)])
    def test_every_class_occurs_and_none_beyond(self, target, classes):
        task = ClutteredDigits(target, distractors=0, size=28)
        labels = task.sample(3000, generator=seeded()).labels
        assert task.classes == classes
        assert labels.unique().tolist() == list(range(classes))


class TestBoxesOverlap:
    def test_agrees_with_torchvision(self):
        corners = torch.randint(73, (500, 2, 2))
        boxes = torch.cat([corners, corners + 28], -1).double()
        iou = torch.stack([box_iou(a[:1], a[1:])[0, 0] for a in boxes])
        torch.testing.assert_close(boxes_overlap(corners).double(), 2 * iou / (1 + iou))

    def test_one_box_covers_itself_and_neighbours_touch_only(self):
        corners = torch.tensor([[[5, 5], [5, 5]], [[0, 0], [28, 0]], [[0, 0], [14, 0]]])
        assert boxes_overlap(corners).tolist() == [1, 0, 0.5]

    def test_rates_on_the_full_canvas(self):
        """Over all 73^4 placements: 37 % of pairs overlap, 18.5 % by more than a quarter."""
        x, y = torch.cartesian_prod(torch.arange(73), torch.arange(73)).T
        # x and y apart; how often a distance occurs between two uniform places out of 73
        corners = torch.stack([torch.zeros(len(x), 2), torch.stack([x, y], -1)], 1).long()
        ways = torch.where(torch.arange(73) == 0, 73, 2 * (73 - torch.arange(73))) / 73**2
        weight, overlap = ways[x] * ways[y], boxes_overlap(corners)
        assert weight.sum() == pytest.approx(1, abs=1e-5)
        assert weight[overlap > 0].sum() == pytest.approx(0.370, abs=0.005)
        assert weight[overlap > 0.25].sum() == pytest.approx(0.185, abs=0.005)

    def test_rates_in_sampled_batches(self):
        generator = seeded()
        task = ClutteredDigits("pair", distractors=0)
        corners = torch.cat([task.sample(500, generator=generator).corners for _ in range(8)])
        overlap = boxes_overlap(corners)
        assert (overlap > 0).float().mean() == pytest.approx(0.37, abs=0.03)
        assert (overlap > 0.25).float().mean() == pytest.approx(0.185, abs=0.025)


@pytest.mark.usefixtures("as_installed")
class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"target": "digits"}, "target must be one of digit, pair, sum, got 'digits'"),
            ({"distractors": -1}, "distractors must be at least 0, got -1"),
            ({"size": 27}, "size must be at least 28, got 27"),
        ],
    )
    def test_refuses_a_task_that_cannot_be(self, arguments, message):
        with pytest.raises(ValueError, match=re.escape(f"ClutteredDigits: {message}")):
            ClutteredDigits(**arguments)

    @pytest.mark.parametrize("count", [0, -3])
    def test_refuses_an_empty_batch(self, count):
        message = f"ClutteredDigits.sample: count must be at least 1, got {count}"
        with pytest.raises(ValueError, match=message):
            ClutteredDigits().sample(count, generator=seeded())

    def test_refuses_an_unknown_split(self):
        with pytest.raises(ValueError, match="split must be one of train, validation, test"):
            ClutteredDigits().sample(1, split="all", generator=seeded())


def test_sides_are_those_of_the_protocol():
    assert (cluttered.DIGIT_SIDE, cluttered.FRAGMENT_SIDE) == (28, 8)
    assert ClutteredDigits() == ClutteredDigits("digit", distractors=8, size=100)


def window_on(x, y, width, height=None):
    """The window with its centre at `(x, y)` and these sides, all in pixels."""
    x, y, width = (torch.as_tensor(v, dtype=torch.float64) for v in (x, y, width))
    height = width if height is None else torch.full_like(width, height)
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)


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
        window = window_on([[x]], [[y]], [[width]])
        assert hits(window, torch.tensor([[self.CORNER]])).tolist() == [[[expected]]]

    def test_neither_side_may_be_too_long(self):
        corners = torch.tensor([[self.CORNER]])
        for width, height in ((28, 57), (57, 28)):
            windows = window_on([[24]], [[74]], [[width]], height)
            assert not hits(windows, corners).any()

    def test_the_whole_canvas_is_on_nothing_even_with_the_digit_in_its_middle(self):
        corners = torch.tensor([[[36, 36]]])
        assert not hits(window_on([[50]], [[50]], [[100]]), corners).any()

    def test_every_look_is_held_against_every_digit(self):
        windows = window_on([[14, 84], [84, 50]], [[14, 14], [14, 50]], [[20, 20], [20, 20]])
        corners = torch.tensor([[[0, 0], [70, 0]], [[0, 0], [70, 0]]])
        expected = [[[True, False], [False, True]], [[False, True], [False, False]]]
        assert hits(windows, corners).tolist() == expected


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
        windows = window_on([[x]], [[y]], [[width]], height)
        assert spans(windows, torch.tensor([self.CORNERS])).item() is expected

    def test_every_look_is_judged_by_itself(self):
        windows = window_on([[24, 50], [64, 24]], [[74, 50], [34, 74]], [[20, 90], [20, 20]])
        corners = torch.tensor([self.CORNERS] * 2)
        expected = [[False, True], [False, False]]
        assert spans(windows, corners).tolist() == expected


class TestBatches:
    TASK = ClutteredDigits(distractors=1, size=30)

    def test_the_same_ones_every_time_and_as_many_as_asked_for(self):
        first, second = (list(self.TASK.batches("test", 7, batch=3)) for _ in range(2))
        assert [len(batch.labels) for batch in first] == [3, 3, 1]
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one.images, other.images)

    def test_fewer_are_the_first_of_more(self):
        few, many = (
            torch.cat([batch.images for batch in self.TASK.batches("test", n, batch=3)])
            for n in (6, 12)
        )
        assert torch.equal(few, many[:6])

    def test_splits_do_not_share_canvases(self):
        test, validation = (next(self.TASK.batches(s, 3)) for s in ("test", "validation"))
        assert not torch.equal(test.images, validation.images)

    def test_the_seed_and_the_number_are_fixed(self):
        """Records hold counts over these very canvases."""
        assert TEST_SEED == 2016
        assert sum(len(batch.labels) for batch in self.TASK.batches("test")) == 20_000

    def test_refuses_none(self):
        with pytest.raises(ValueError, match="batches: count must be at least 1, got 0"):
            next(self.TASK.batches("test", 0))


def said(answers, windows=None):
    """What a model said of canvases, and where it looked."""
    return Rollout(torch.zeros(len(answers), 2, 10), windows, said=torch.tensor(answers))


def canvases(labels, corners):
    """What is known of canvases; nobody looks at their pixels."""
    labels, corners = torch.tensor(labels), torch.tensor(corners)
    digits = torch.zeros(corners.shape[:2], dtype=torch.int64)
    return CanvasBatch(torch.zeros(len(labels), 1, 30, 30), labels, digits, corners)


def shares(judgement):
    """Hits and cases, as numbers."""
    return {k: (int((hit & of).sum()), int(of.sum())) for k, (hit, of) in judgement.items()}


class TestJudgeOneDigit:
    # canvas: 0 right and found, 1 wrong and found, 2 right and missed, 3 wrong and missed, 4 as 3
    TASK, LABELS, ANSWERS = ClutteredDigits("digit"), [1, 2, 3, 4, 5], [1, 0, 3, 0, 0]
    CANVASES = canvases(LABELS, [[[0, 0]]] * 5)
    # The first look is far away; the last one decides.
    WINDOWS = window_on(
        [[80, x] for x in (14, 14, 60, 60, 60)], [[80, 14]] * 5, [[20, 20]] * 5
    ).float()

    def test_by_hand(self):
        found = shares(self.TASK.judge(said(self.ANSWERS, self.WINDOWS), self.CANVASES))
        assert found == {"error": (3, 5), "missed": (3, 5), "error_where_missed": (2, 3)}

    def test_without_errors_there_is_nothing_to_explain(self):
        found = shares(self.TASK.judge(said(self.LABELS, self.WINDOWS), self.CANVASES))
        assert found["error_where_missed"] == (0, 0)

    def test_a_model_that_does_not_look_misses_nothing(self):
        assert set(self.TASK.judge(said(self.ANSWERS), self.CANVASES)) == {"error"}


class TestJudgeTwoDigits:
    TASK, LABELS, ANSWERS = ClutteredDigits("pair"), [1, 2, 3, 4], [1, 0, 0, 4]
    # Boxes that overlap on canvas 2 alone.
    CORNERS = [[[0, 0], [70, 70]]] * 2 + [[[0, 0], [20, 20]], [[0, 0], [70, 70]]]
    CENTRES = ((14, 84), (14, 14), (14, 34), (84, 14))  # along x and y alike
    WINDOWS = window_on(CENTRES, CENTRES, [[20, 20]] * 4).float()

    def test_by_hand(self):
        batch = canvases(self.LABELS, self.CORNERS)
        assert shares(self.TASK.judge(said(self.ANSWERS, self.WINDOWS), batch)) == {
            "error": (2, 4),
            "error_apart": (1, 3),
            "error_overlapping": (0, 0),
            "visited_both": (2, 3),
            "spanned_both": (0, 3),
        }

    def test_overlapping_digits_share_half_a_box_or_more(self):
        """14 by 28 shared pixels are half of 28 by 28; 13 by 28 are less; 20 by 20 are more."""
        corners = [[[0, 0], [14, 0]], [[0, 0], [15, 0]], [[9, 9], [1, 1]], [[0, 0], [70, 70]]]
        found = shares(self.TASK.judge(said(self.ANSWERS), canvases(self.LABELS, corners)))
        assert found["error_overlapping"] == (1, 2)
        assert found["error_apart"] == (0, 1)

    def test_a_window_on_both_digits_spans_them_and_visits_neither(self):
        centres = [[49, 14]] * 3 + [[84, 14]]
        windows = window_on(centres, centres, [[90, 20]] * 3 + [[20, 20]]).float()
        batch = canvases(self.LABELS, self.CORNERS)
        found = shares(self.TASK.judge(said(self.ANSWERS, windows), batch))
        assert found["spanned_both"] == (2, 3)
        assert found["visited_both"] == (1, 3)

    def test_a_model_that_does_not_look_visits_nothing(self):
        found = self.TASK.judge(said(self.ANSWERS), canvases(self.LABELS, self.CORNERS))
        assert not {"visited_both", "spanned_both"} & set(found)
