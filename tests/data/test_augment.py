"""Changed digits: an affine map worked out pixel by pixel, and what may never change."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from ramlib.data import augment, mnist
from ramlib.data.augment import affine_maps, distort, warp
from ramlib.data.cluttered import ClutteredDigits

SIDE = 28


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def digits():
    """One of each class, in [0, 1]."""
    source = mnist.load("validation")
    first = [int((source.labels == label).nonzero()[0, 0]) for label in range(10)]
    return source.images[first, None] / 255


def between(image, x, y):
    """An image's value at a place in pixels, between four neighbours; outside it is black."""
    left, top = math.floor(x), math.floor(y)
    value = 0.0
    for column, row in product((left, left + 1), (top, top + 1)):
        if 0 <= column < image.shape[1] and 0 <= row < image.shape[0]:
            value += (1 - abs(x - column)) * (1 - abs(y - row)) * image[row, column]
    return value


def drawn_anew(image, place):
    """The image that at each pixel holds what lies at `place(x, y)`, in pixels from the middle."""
    middle = (SIDE - 1) / 2
    new = np.empty((SIDE, SIDE))
    for row, column in product(range(SIDE), range(SIDE)):
        x, y = place(column - middle, row - middle)
        new[row, column] = between(image, x + middle, y + middle)
    return new


class TestAffine:
    @pytest.mark.parametrize("strength", [0.5, 1.0])
    @pytest.mark.parametrize("noise", [(1, 0, 0, 0, 0, 0), (0.4, -0.9, 0.7, -1, 0.5, -0.8)])
    def test_agrees_with_a_loop_over_pixels(self, noise, strength, digits):
        rotation, shear, wider, taller, right, down = (strength * n for n in noise)

        def place(x, y):
            x, y = x * (1 + 0.12 * wider), y * (1 + 0.12 * taller)
            x += 0.2 * shear * y
            turned = complex(x, y) * np.exp(1j * math.pi * 12 * rotation / 180)
            half = SIDE / 2
            return turned.real + 0.08 * right * half, turned.imag + 0.08 * down * half

        where = affine_maps(torch.tensor([noise]).float(), strength)
        ours = warp(digits[3:4], where)[0, 0]
        theirs = drawn_anew(digits[3, 0].numpy(), place)
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)

    def test_a_rotation_goes_from_x_to_y(self):
        """What was below the middle comes to its right: places are read from, not sent to."""
        where = affine_maps(torch.tensor([[90 / 12, 0, 0, 0, 0, 0]]))
        image = torch.zeros(1, 1, 5, 5)
        image[0, 0, 4, 2] = 1
        assert warp(image, where)[0, 0].argmax() == 2 * 5 + 4

    def test_changes_are_uniform_up_to_their_half_width(self):
        noise = 2 * torch.rand(4000, 6) - 1
        where = affine_maps(noise)
        assert where[..., 2].abs().max() == pytest.approx(0.08, abs=1e-3)
        # The area of a rotated and sheared square is that of the scaled one.
        area = torch.linalg.det(where[..., :2])
        torch.testing.assert_close(area, (1 + 0.12 * noise[:, 2]) * (1 + 0.12 * noise[:, 3]))


class TestElastic:
    def test_a_net_that_moves_as_one_is_a_shift(self, digits):
        same = torch.eye(2, 3).expand(10, 2, 3)
        elastic = torch.zeros(10, 2, 4, 4)
        elastic[:, 0], elastic[:, 1] = 3 * 2 / SIDE, -2 * 2 / SIDE  # 3 pixels right, 2 up
        moved = warp(digits, same, elastic=elastic)
        expected = torch.zeros_like(digits)
        expected[..., 2:, :-3] = digits[..., :-2, 3:]
        torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)

    def test_a_knot_moves_its_own_corner_by_its_own_amount(self):
        """An image linear in x and y tells where each pixel was read."""
        x = torch.arange(float(SIDE)).expand(SIDE, SIDE)
        images = torch.stack([x, x.T])[:, None]
        elastic = torch.zeros(2, 2, 4, 4)
        elastic[:, 0, 0, 0] = 0.1  # x, upper left
        elastic[:, 1, 3, 3] = -0.1  # y, lower right
        bent = warp(images, torch.eye(2, 3).expand(2, 2, 3), elastic=elastic, padding="border")
        moved = (bent - images)[:, 0]
        assert moved[0, 0, 0] == pytest.approx(0.1 * SIDE / 2, abs=1e-4)
        assert moved[1, -1, -1] == pytest.approx(-0.1 * SIDE / 2, abs=1e-4)
        # Its knots lie at 0, 9, 18 and 27, and one is felt as far as the second from it.
        assert moved[0, 18:, 18:].abs().max() < 1e-4
        assert moved[1, :10, :10].abs().max() < 1e-4
        assert moved[0, 0, 0] > moved[0, 4, 4] > 0.1


class TestDistort:
    def test_strength_0_changes_nothing(self, digits):
        same = distort(digits, seeded(), strength=0.0)
        torch.testing.assert_close(same, digits, atol=1e-5, rtol=0)

    def test_each_digit_changes_by_itself(self, digits):
        new = distort(digits[:1].expand(20, -1, -1, -1), seeded())
        apart = torch.cdist(new.flatten(1), new.flatten(1)) + torch.eye(20) * 99
        assert apart.min() > 1

    def test_more_strength_changes_more(self, digits):
        apart = [
            (distort(digits, seeded(), strength=s) - digits).square().mean()
            for s in (0.3, 0.6, 1.0)
        ]
        assert apart == sorted(apart)

    def test_keeps_most_of_the_ink(self, digits):
        """A digit is scaled by up to 12 % each way, and hardly any of it leaves the image."""
        many = digits.repeat(50, 1, 1, 1)
        ink = distort(many, seeded()).sum((1, 2, 3)) / many.sum((1, 2, 3))
        assert ink.mean() == pytest.approx(1, abs=0.05)
        assert ink.min() > 0.6
        assert ink.max() < 1.6

    def test_same_seed_same_digits(self, digits):
        first, again, other = (distort(digits, seeded(s)) for s in (7, 7, 8))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_leaves_the_global_generator_alone(self, digits):
        before = torch.get_rng_state()
        distort(digits, seeded())
        assert torch.equal(torch.get_rng_state(), before)


class TestCanvases:
    @pytest.mark.parametrize("target", ["digit", "pair", "sum"])
    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_what_is_measured_on_is_as_it_was_written(self, target, split):
        plain, changed = ClutteredDigits(target), ClutteredDigits(target, augment=1.0)
        ours, theirs = (t.sample(8, split=split, generator=seeded()) for t in (plain, changed))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))

    @pytest.mark.parametrize("target", ["digit", "pair", "sum"])
    def test_training_digits_change_where_they_stand(self, target):
        """Labels, places and clutter are those of the same seed without changes."""
        plain, changed = ClutteredDigits(target), ClutteredDigits(target, augment=1.0)
        ours, theirs = (t.sample(8, generator=seeded()) for t in (plain, changed))
        for field in ("labels", "digits", "corners"):
            assert torch.equal(getattr(ours, field), getattr(theirs, field))
        differs = (ours.images - theirs.images)[:, 0].abs() > 1e-6
        for where, corners in zip(differs, ours.corners.tolist(), strict=True):
            assert where.any()
            for x, y in corners:
                where[y : y + SIDE, x : x + SIDE] = False
            assert not where.any()

    def test_pixels_stay_in_range(self):
        task = ClutteredDigits("pair", distractors=30, augment=3.0)
        images = task.sample(64, generator=seeded()).images
        assert images.min() == 0
        assert images.max() == 1
        assert images.dtype == torch.float32

    def test_same_seed_same_canvases(self):
        task = ClutteredDigits("pair", augment=1.0)
        first, again = (task.sample(8, generator=seeded(3)) for _ in range(2))
        assert torch.equal(first.images, again.images)

    def test_the_two_digits_of_a_canvas_change_apart(self, monkeypatch):
        one = mnist.load("train")
        single = mnist.Digits(one.images[:1], one.labels[:1])
        monkeypatch.setattr(mnist, "load", lambda split, device: single)
        batch = ClutteredDigits("pair", 0, size=120, augment=1.0).sample(40, generator=seeded())
        for image, ((x, y), (u, v)) in zip(batch.images[:, 0], batch.corners.tolist(), strict=True):
            if max(abs(x - u), abs(y - v)) >= SIDE:
                first, second = image[y : y + SIDE, x : x + SIDE], image[v : v + SIDE, u : u + SIDE]
                assert not torch.allclose(first, second, atol=0.1)

    def test_refuses_a_negative_strength(self, as_installed):
        with pytest.raises(ValueError, match=r"augment must be at least 0, got -0\.1"):
            ClutteredDigits(augment=-0.1)


def test_changes_are_those_of_the_book():
    assert math.degrees(augment.ROTATION) == pytest.approx(12)
    rest = augment.SHEAR, augment.SCALE, augment.SHIFT, augment.ELASTIC, augment.KNOTS
    assert rest == (0.2, 0.12, 0.08, 0.05, 4)
