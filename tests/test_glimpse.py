"""The glimpse against DRAW's own formulas in numpy, closed forms, and the extremes."""

import math
import re
from dataclasses import astuple, fields

import numpy as np
import oracles
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tolerances import DTYPES, TOLERANCE, assert_near
from torch.nn import functional as F

from ramlib.glimpse import GlimpseGrid, gaussian_filterbank, read_glimpse, support_of

NAMES = tuple(field.name for field in fields(GlimpseGrid))


def grid_of(*rows, dtype=torch.float64, requires_grad=False):
    """A grid from rows (c_x, c_y, delta_x, delta_y, sigma, gamma), one for each image."""
    columns = torch.tensor(rows, dtype=dtype).T.contiguous()
    return GlimpseGrid(*(column.requires_grad_(requires_grad) for column in columns.unbind()))


def random_grid(batch, dtype=torch.float64, seed=0):
    """Ordinary windows: all over the image, some rectangular, some sharp."""
    u = torch.rand(6, batch, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    low = torch.tensor([-1, -1, 0.3, 0.3, 0.4, 0.5]).double()[:, None]
    high = torch.tensor([1, 1, 3, 3, 2.5, 2]).double()[:, None]
    return GlimpseGrid(*(low + (high - low) * u).to(dtype).unbind())


def bank_of(centre, delta, sigma, **arguments):
    one = [torch.tensor([value], dtype=torch.float64) for value in (centre, delta, sigma)]
    return gaussian_filterbank(*one, **arguments)[0]


class TestGlimpseGrid:
    def test_refuses_parameters_of_different_shapes_and_names_them(self):
        five = [torch.zeros(3)] * 5
        with pytest.raises(
            ValueError, match="GlimpseGrid: all parameters must have one shape"
        ) as e:
            GlimpseGrid(*five, torch.zeros(2))
        assert "'c_x': (3,)" in str(e.value)
        assert "'gamma': (2,)" in str(e.value)

    def test_stack_then_index_returns_each_look(self):
        looks = [random_grid(3, seed=seed) for seed in range(4)]
        rollout = GlimpseGrid.stack(looks)
        assert rollout.shape == (3, 4)
        for t, look in enumerate(looks):
            assert all(map(torch.equal, astuple(rollout[:, t]), astuple(look)))

    def test_map_touches_every_parameter_once(self):
        grid = grid_of((1, 2, 3, 4, 5, 6))
        assert torch.cat(astuple(grid.map(torch.neg))).tolist() == [-1, -2, -3, -4, -5, -6]

    def test_ends_of_the_range_are_the_first_and_the_last_pixel(self):
        """Eqs. 22-23, Gregor et al. (2015), but for the ends: theirs lie a pixel outside."""
        grid = grid_of((-1, -1, 1, 1, 1, 1), (0, 0, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1))
        x, y = grid.centres((30, 50))
        assert x.tolist() == [0, 24.5, 49]
        assert y.tolist() == [0, 14.5, 29]


class TestBoxes:
    def test_window_of_the_copying_grid_is_the_image(self):
        grid = grid_of((0, 0, 1, 1, 0.001, 1))
        assert grid.boxes(40, (40, 40)).tolist() == [[0, 0, 40, 40]]

    def test_rectangle_by_hand(self):
        """Centre (10.5, 0) in pixel centres, 4 cells of 3 by 2 pixels; pixel i covers [i, i+1)."""
        grid = grid_of((0, -1, 3, 2, 1, 1))
        assert grid.boxes(4, (12, 22)).tolist() == [[5, -3.5, 17, 4.5]]

    def test_keeps_the_shape_of_a_rollout(self):
        rollout = GlimpseGrid.stack([random_grid(3), random_grid(3)])
        assert rollout.boxes(5, (20, 20)).shape == (3, 2, 4)

    def test_holds_the_filters_of_the_grid_in_its_middle(self):
        """Outermost filters stand half a cell inside the box."""
        grid = random_grid(20)
        x, _ = grid.centres((30, 40))
        left, _, right, _ = grid.boxes(6, (30, 40)).unbind(-1)
        assert_near((left + right) / 2 - 0.5, x)
        assert_near(right - left, 6 * grid.delta_x)


class TestAt:
    def test_its_centre_and_its_window_are_those_that_were_asked_for(self):
        grid = GlimpseGrid.at(30.0, 12.5, 24.0, 18.0, size=6, image_size=(50, 80))
        x, y = grid.centres((50, 80))
        assert_near(torch.cat([x, y]), [30, 12.5])
        # Pixel 30 covers [30, 31), so its middle lies at 30.5.
        assert_near(grid.boxes(6, (50, 80)), [[18.5, 4, 42.5, 22]])
        assert_near(torch.cat([grid.delta_x, grid.delta_y]), [4, 3])
        assert_near(grid.sigma, [12**0.5 / 2])
        assert_near(grid.gamma, [1])

    def test_the_whole_image_is_copied_where_filters_are_pixels(self):
        images = torch.rand(1, 1, 9, 9)
        grid = GlimpseGrid.at(4, 4, 9, 9, size=9, image_size=(9, 9), sharpness=1e-3)
        assert_near(read_glimpse(images, grid, 9), images)

    def test_numbers_meet_a_batch_of_tensors_in_their_dtype_and_gradient(self):
        x = torch.tensor([3.0, 5.0, 6.0], dtype=torch.float64, requires_grad=True)
        grid = GlimpseGrid.at(x, 2, torch.tensor([4, 5, 6]), 4, size=4, image_size=(9, 11))
        assert grid.shape == (3,)
        assert all(value.dtype == torch.float64 for value in astuple(grid.detach()))
        (slope,) = torch.autograd.grad(grid.c_x.sum(), x)
        assert_near(slope, torch.full((3,), 0.2, dtype=torch.float64))


def test_a_grid_moves_as_a_tensor_does():
    grid = random_grid(2).map(torch.Tensor.requires_grad_)
    assert all(value.dtype == torch.float16 for value in astuple(grid.detach().to(torch.float16)))
    assert grid.to("meta").c_x.is_meta
    assert not any(value.requires_grad for value in astuple(grid.detach()))


@pytest.mark.usefixtures("as_installed")
def test_a_grid_of_numbers_is_refused_with_the_cure():
    message = r"c_x must be a tensor, got float; GlimpseGrid\.at makes a grid from numbers"
    with pytest.raises(TypeError, match=message):
        GlimpseGrid(*[0.0] * 6)


class TestGaussianFilterbank:
    @pytest.mark.parametrize(
        ("centre", "delta", "sigma", "filters", "pixels"),
        [
            (13.5, 2.0, 1.0, 5, 28),  # odd
            (13.5, 2.0, 1.0, 4, 28),  # even
            (4.2, 0.7, 0.4, 12, 30),  # narrow, off the pixels
            (0.0, 3.0, 2.5, 3, 9),  # half off the image
            (5.0, 0.0, 1.5, 3, 11),  # all filters on one another
            (2.0, 1.0, 1.0, 1, 5),  # one filter
            (0.0, 1.0, 1.0, 2, 1),  # one pixel
        ],
    )
    def test_matches_draws_formula_counted_from_one(self, centre, delta, sigma, filters, pixels):
        """Eqs. 19-20 and 25-26, Gregor et al. (2015), as printed."""
        bank = bank_of(centre, delta, sigma, filters=filters, pixels=pixels)
        assert_near(bank, oracles.draw_filterbank(centre + 1, delta, sigma, filters, pixels))

    def test_indices_from_zero_in_draws_formula_shift_the_grid_by_one_delta(self):
        """The bug of many ports, shown: filter i of theirs is filter i - 1 of ours."""
        centre, delta, sigma, filters, pixels = 20.0, 3.0, 1.0, 6, 41
        i, a = np.arange(filters)[:, None], np.arange(pixels)
        wrong = np.exp(-((a - centre - (i - filters / 2 - 0.5) * delta) ** 2) / (2 * sigma**2))
        wrong /= wrong.sum(1, keepdims=True)
        right = bank_of(centre, delta, sigma, filters=filters, pixels=pixels)
        assert_near(right[:-1], wrong[1:])

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_rows_sum_to_one(self, dtype):
        centre, sigma = torch.linspace(-50, 150, 9), torch.logspace(-3, 3, 9)
        bank = gaussian_filterbank(
            *(v.to(dtype) for v in (centre, sigma, sigma)), filters=7, pixels=100
        )
        assert (bank >= 0).all()
        assert_near(bank.double().sum(-1), torch.ones(9, 7), dtype)

    def test_centre_of_mass_is_where_the_filter_stands(self):
        bank = bank_of(50.3, 2.7, 1.5, filters=9, pixels=101)
        a = torch.arange(101).double()
        mu = 50.3 + 2.7 * torch.arange(-4, 5).double()
        assert_near(bank @ a, mu)

    def test_second_moment_is_sigma_squared(self):
        """Not its square root nor its square, the other bug of public ports."""
        bank = bank_of(50.3, 2.7, 1.5, filters=9, pixels=101)
        a = torch.arange(101).double()
        mu = bank @ a
        spread = (bank * (a - mu[:, None]) ** 2).sum(-1)
        assert_near(spread, torch.full((9,), 1.5**2).double(), atol=1e-7, rtol=0)

    def test_grid_is_symmetric_about_its_centre(self):
        bank = bank_of(14.0, 1.3, 0.8, filters=6, pixels=29)
        assert_near(bank, bank.flip(0, 1))

    @pytest.mark.parametrize("filters", [1, 4, 5])
    def test_narrow_filters_one_pixel_apart_copy_pixels(self, filters):
        centre = 10 + (filters - 1) / 2
        bank = bank_of(centre, 1.0, 1e-3, filters=filters, pixels=30)
        assert_near(bank, torch.eye(30)[10 : 10 + filters])

    def test_a_narrow_filter_half_way_sees_both_neighbours_alike(self):
        bank = bank_of(4.5, 1.0, 1e-3, filters=1, pixels=10)
        assert_near(bank[0, 4:6], torch.tensor([0.5, 0.5]))

    @pytest.mark.parametrize(("centre", "pixel"), [(-1e30, 0), (-40.0, 0), (60.0, 9), (1e30, 9)])
    def test_off_the_image_the_nearest_pixel_is_seen(self, centre, pixel):
        bank = bank_of(centre, 0.5, 0.5, filters=3, pixels=10)
        assert_near(bank, torch.eye(10)[[pixel] * 3])

    def test_a_very_wide_filter_sees_all_pixels_alike(self):
        bank = bank_of(7.0, 1.0, 1e9, filters=3, pixels=20)
        assert_near(bank, torch.full((3, 20), 1 / 20, dtype=torch.float64))

    def test_first_moves_the_pixels_that_are_weighed(self):
        whole = bank_of(50.0, 1.0, 0.7, filters=5, pixels=101)
        part = bank_of(50.0, 1.0, 0.7, filters=5, pixels=31, first=torch.tensor([35]))
        assert_near(part, whole[:, 35:66])

    def test_gradcheck(self):
        centre, delta, sigma = (
            torch.tensor(values, dtype=torch.float64, requires_grad=True)
            for values in ([3.2, -1.5], [1.1, 0.0], [0.8, 2.0])
        )
        bank = lambda *grid: gaussian_filterbank(*grid, filters=4, pixels=9)  # noqa: E731
        assert torch.autograd.gradcheck(bank, (centre, delta, sigma))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_keeps_the_dtype(self, dtype):
        one = torch.ones(2, dtype=dtype)
        bank = gaussian_filterbank(one * 8, one, one, filters=5, pixels=17)
        assert bank.dtype == dtype
        exact = oracles.draw_filterbank(9, 1, 1, 5, 17)
        assert_near(bank, np.stack([exact, exact]))


class TestReadGlimpse:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(1, 10, 10), (3, 9, 14), (2, 15, 6)])
    def test_matches_a_double_loop(self, shape, dtype):
        """Eq. 27, Gregor et al. (2015), one weighted sum per pixel seen."""
        images = torch.rand(3, *shape, dtype=torch.float64).to(dtype)
        grid = random_grid(3, dtype)
        seen = read_glimpse(images, grid, 4)
        assert seen.shape == (3, shape[0], 4, 4)
        parameters = np.stack([p.double().numpy() for p in astuple(grid)], 1)
        loops = [
            oracles.draw_read(image.double().numpy(), *row, size=4)
            for image, row in zip(images, parameters, strict=True)
        ]
        assert_near(seen, np.stack(loops), dtype)

    @pytest.mark.parametrize("side", [5, 12])
    def test_grid_of_single_pixels_returns_the_image(self, side):
        images = torch.rand(2, 3, side, side, dtype=torch.float64)
        grid = grid_of(*[(0, 0, 1, 1, 1e-3, 1)] * 2)
        assert_near(read_glimpse(images, grid, side), images)

    def test_moves_with_the_image(self):
        """Rolling the image by (3, -2) pixels and the centre with it changes nothing."""
        image = torch.zeros(1, 1, 41, 51, dtype=torch.float64)
        image[..., 12:30, 15:36] = torch.rand(18, 21, dtype=torch.float64)
        grid = grid_of((0.04, -0.1, 1.7, 1.2, 0.6, 1.3))
        moved = grid_of((0.04 + 2 / 50 * 3, -0.1 - 2 / 40 * 2, 1.7, 1.2, 0.6, 1.3))
        seen = read_glimpse(image.roll((-2, 3), (-2, -1)), moved, 8)
        assert_near(seen, read_glimpse(image, grid, 8))

    def test_turning_the_image_turns_the_glimpse(self):
        """x and y are treated alike: swap them in image and grid, and the glimpse is swapped."""
        images, grid = torch.rand(4, 2, 11, 17, dtype=torch.float64), random_grid(4)
        turned = GlimpseGrid(grid.c_y, grid.c_x, grid.delta_y, grid.delta_x, grid.sigma, grid.gamma)
        assert_near(read_glimpse(images.mT, turned, 5), read_glimpse(images, grid, 5).mT)

    def test_x_runs_right_and_y_runs_down(self):
        image = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
        image[..., 4, 16] = 1  # up on the right
        grid = grid_of((0.6, -0.6, 1, 1, 0.3, 1))
        seen = read_glimpse(image, grid, 3)[0, 0]
        assert seen.argmax() == 4
        assert seen[1, 1] > 0.9

    def test_blurs_a_wave_as_the_closed_form_says(self):
        """A Gaussian filter scales cos(kx) by exp(-(k sigma)^2 / 2) and leaves its phase."""
        k, sigma = 2 * math.pi / 20, 2.0
        x = torch.arange(121).double()
        image = torch.cos(k * x).expand(1, 1, 121, 121)
        grid = grid_of((0.1, 0.0, 3.0, 2.0, sigma, 1.5))
        mu = 60 * 1.1 + 3 * (torch.arange(6) - 2.5)
        wave = 1.5 * math.exp(-((k * sigma) ** 2) / 2) * torch.cos(k * mu)
        assert_near(read_glimpse(image, grid, 6)[0, 0], wave.expand(6, 6), atol=1e-6, rtol=0)

    def test_agrees_with_grid_sample_on_smooth_images(self):
        """Both interpolate; on waves of 60 pixels they differ by less than 0.5 % of the range."""
        y, x = torch.meshgrid(torch.arange(50.0), torch.arange(70.0), indexing="ij")
        image = torch.stack([torch.sin(x / 10) * torch.cos(y / 10), torch.cos(x / 10 + y / 12)])
        grid = grid_of((0.2, -0.3, 2.3, 1.1, 0.5, 1), dtype=torch.float32)
        offsets = torch.arange(8) - 3.5
        at_x = 0.2 + offsets * 2.3 * 2 / 69
        at_y = -0.3 + offsets * 1.1 * 2 / 49
        places = torch.stack(torch.meshgrid(at_x, at_y, indexing="xy"), -1)[None]
        sampled = F.grid_sample(image[None], places, align_corners=True)
        assert_near(read_glimpse(image[None], grid, 8), sampled, atol=5e-3, rtol=0)

    def test_gamma_scales_the_glimpse(self):
        images, grid = torch.rand(2, 1, 9, 9, dtype=torch.float64), random_grid(2)
        doubled = GlimpseGrid(*astuple(grid)[:-1], 2 * grid.gamma)
        assert_near(read_glimpse(images, doubled, 3), 2 * read_glimpse(images, grid, 3))

    def test_a_constant_image_is_seen_constant_everywhere(self):
        images = torch.full((6, 2, 13, 17), 0.3, dtype=torch.float64)
        grid = random_grid(6)
        seen = read_glimpse(images, grid, 5)
        assert_near(seen, (0.3 * grid.gamma)[:, None, None, None].expand(6, 2, 5, 5))

    def test_each_image_has_its_own_grid(self):
        images, grid = torch.rand(5, 2, 12, 13, dtype=torch.float64), random_grid(5)
        together = read_glimpse(images, grid, 4)
        alone = [read_glimpse(images[[b]], grid[[b]], 4) for b in range(5)]
        assert_near(together, torch.cat(alone))

    @pytest.mark.parametrize("support", [None, 7])
    def test_gradcheck(self, support):
        """Value against slope, in float64, for images and all six parameters."""
        images = torch.rand(2, 1, 10, 11, dtype=torch.float64, requires_grad=True)
        grid = grid_of(
            (0.21, -0.13, 1.1, 0.9, 0.7, 1.2), (-0.52, 0.83, 0.6, 1.7, 0.9, 0.6), requires_grad=True
        )
        read = lambda images, *grid: read_glimpse(  # noqa: E731
            images, GlimpseGrid(*grid), 3, support=support
        )
        assert torch.autograd.gradcheck(read, (images, *astuple(grid)))

    def test_moving_the_centre_right_raises_a_rising_ramp(self):
        """On I = x the glimpse is gamma (mu_x): its slopes are known by hand."""
        image = torch.arange(61).double().expand(1, 1, 61, 61)
        grid = grid_of((0.1, 0, 2, 2, 1.7, 1.5), requires_grad=True)
        read_glimpse(image, grid, 2)[0, 0, 0, 1].backward()  # mu = 33 + 2 / 2
        slopes = [getattr(grid, name).grad.item() for name in NAMES]
        assert slopes == pytest.approx([1.5 * 30, 0, 1.5 / 2, 0, 0, 34], abs=1e-6)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("support", [None, 12])
    def test_keeps_dtype_in_value_and_gradient(self, dtype, support):
        images = torch.rand(2, 3, 20, 30).to(dtype).requires_grad_()
        grid = random_grid(2, dtype).map(torch.Tensor.requires_grad_)
        seen = read_glimpse(images, grid, 4, support=support)
        seen.sum().backward()
        assert seen.dtype == dtype
        assert {p.grad.dtype for p in (images, *astuple(grid))} == {dtype}

    @pytest.mark.parametrize("support", [None, 12])
    def test_stays_on_its_device(self, support):
        """On the device that computes nothing, a tensor made on another would be refused."""
        images = torch.rand(2, 3, 20, 30, device="meta")
        grid = random_grid(2, torch.float32).map(lambda p: p.to("meta"))
        seen = read_glimpse(images, grid, 4, support=support)
        assert seen.device.type == "meta"
        assert seen.shape == (2, 3, 4, 4)

    def test_images_in_half_and_grid_in_single(self):
        """Mixed precision: the glimpse takes the image's type, the slopes the grid's."""
        images = torch.rand(2, 1, 20, 20).to(torch.bfloat16)
        grid = random_grid(2, torch.float32).map(torch.Tensor.requires_grad_)
        seen = read_glimpse(images, grid, 4)
        assert seen.dtype == torch.bfloat16
        assert_near(seen, read_glimpse(images.float(), grid, 4), torch.bfloat16)
        seen.float().sum().backward()
        assert all(p.grad.isfinite().all() for p in astuple(grid))


class TestSupport:
    """The windowed read against the full one. Stated tolerance: 2e-4 of the image's range for a
    value, and 5e-3 of the largest slope for a gradient."""

    @staticmethod
    def both(images, grid, size, support):
        out = []
        for side in (None, support):
            inputs = [images.clone(), *map(torch.clone, astuple(grid))]
            images_, *parameters = (tensor.requires_grad_() for tensor in inputs)
            seen = read_glimpse(images_, GlimpseGrid(*parameters), size, support=side)
            weights = torch.linspace(-1, 1, seen.numel(), dtype=seen.dtype).view_as(seen).sin()
            out.append((seen.detach(), torch.autograd.grad((seen * weights).sum(), inputs)))
        return out

    @pytest.mark.parametrize("image_size", [(60, 60), (48, 90), (200, 30)])
    @pytest.mark.parametrize(("delta", "sigma"), [(1.0, 0.5), (2.0, 2.3), (0.1, 3.0), (3.0, 0.3)])
    def test_equals_the_full_read_in_value_and_gradient(self, image_size, delta, sigma):
        images = torch.rand(8, 2, *image_size, dtype=torch.float64)
        centres = torch.tensor([-1, 1, 0, 0.99, -0.7, 0.013, 0.5, -0.31]).double()
        one = torch.ones(8, dtype=torch.float64)
        grid = GlimpseGrid(centres, centres.roll(3), delta * one, delta * one, sigma * one, one)
        support = support_of(6, delta, sigma)
        assert 2 * support**2 <= math.prod(image_size)  # or the image would be read in place
        (full, full_slopes), (part, part_slopes) = self.both(images, grid, 6, support)
        assert_near(part, full, atol=2e-4, rtol=0)
        for ours, theirs in zip(part_slopes, full_slopes, strict=True):
            assert_near(ours, theirs, atol=5e-3 * theirs.abs().max().item(), rtol=0)

    def test_more_reach_comes_closer(self):
        images, grid = torch.rand(4, 1, 80, 80, dtype=torch.float64), random_grid(4)
        errors = []
        for reach in (2.0, 4.0, 6.0):
            support = support_of(4, 3.0, 2.5, reach=reach)
            seen = read_glimpse(images, grid, 4, support=support)
            errors.append((seen - read_glimpse(images, grid, 4)).abs().max().item())
        assert errors[0] > 10 * errors[1] > 100 * errors[2]

    def test_weight_left_out_is_below_the_documented_bound(self):
        """For the worst placing of the centre between two pixels, and every sharpness."""
        for sigma in (0.3, 1.0, 4.8):
            for delta in (0.0, 1.0, 4.5):
                span = support_of(12, delta, sigma)
                for centre in np.linspace(200, 201, 11):
                    bank = bank_of(centre, delta, sigma, filters=12, pixels=401)
                    first = round(centre - (span - 1) / 2)
                    assert 1 - bank[:, first : first + span].sum(-1).min() < 1e-4

    @pytest.mark.parametrize("support", [15, 20, 33, 1000])
    def test_a_support_of_more_than_half_the_image_is_the_full_read(self, support):
        images, grid = torch.rand(3, 1, 20, 20, dtype=torch.float64), random_grid(3)
        seen = read_glimpse(images, grid, 4, support=support)
        assert torch.equal(seen, read_glimpse(images, grid, 4))

    def test_pixels_outside_are_not_read(self):
        """NaN a window's width away does not reach the glimpse."""
        images = torch.full((1, 1, 500, 500), float("nan"), dtype=torch.float64)
        images[..., 230:271, 230:271] = 0.5
        seen = read_glimpse(images, grid_of((0, 0, 2, 2, 1, 1)), 8, support=support_of(8, 2.0, 1.0))
        assert_near(seen, torch.full((1, 1, 8, 8), 0.5))

    def test_every_channel_is_cut_from_its_own_plane(self):
        images = torch.arange(3).double().view(1, 3, 1, 1).expand(1, 3, 50, 50)
        seen = read_glimpse(images, grid_of((0.3, 0.2, 1, 1, 1, 1)), 4, support=12)
        assert_near(seen, torch.arange(3).view(1, 3, 1, 1).expand(1, 3, 4, 4))


def finite(dtype, *, low=None, high=None):
    """Any finite number that `dtype` holds."""
    info = torch.finfo(dtype)
    low, high = (info.min if low is None else low), (info.max if high is None else high)
    ordinary = st.floats(max(low, -3), min(high, 3))
    return st.one_of(ordinary, st.floats(low, high), st.sampled_from([low, high]))


@st.composite
def looks(draw):
    """Images and a grid with any finite parameters, in any type."""
    dtype = draw(st.sampled_from(DTYPES))
    rows = [
        draw(
            st.tuples(*[finite(dtype)] * 4, finite(dtype, low=1e-4), finite(dtype, low=-4, high=4))
        )
        for _ in range(3)
    ]
    kind = draw(st.sampled_from(["black", "constant", "noise", "one pixel"]))
    height, width = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    images = torch.zeros(3, 2, height, width)
    if kind == "constant":
        images += 0.7
    elif kind == "noise":
        images = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(1))
    elif kind == "one pixel":
        images[..., height // 2, width // 2] = 1
    size = draw(st.integers(1, 6))
    return images.to(dtype), rows, size, draw(st.sampled_from([None, 1, 7]))


def off_by_a_half(dtype, sigma):
    """A narrow filter exactly half-way between two pixels: the steepest slope there is."""
    return torch.rand(3, 2, 8, 8).to(dtype), [(0, 0, 1, 1, sigma, 1)] * 3, 3, None


class TestExtremes:
    @given(looks())
    @example(off_by_a_half(torch.float16, 1e-3))
    @example(off_by_a_half(torch.float32, 1e-3))
    @example(off_by_a_half(torch.bfloat16, 1e-30))
    def test_value_and_gradient_are_finite_for_any_finite_parameters(self, look):
        images, rows, size, support = look
        images.requires_grad_()
        grid = grid_of(*rows, dtype=images.dtype, requires_grad=True)
        seen = read_glimpse(images, grid, size, support=support)
        assert seen.isfinite().all()
        assert seen.abs().max() <= 4 * 1.01  # a weighted mean of pixels in [0, 1], times gamma
        seen.sum().backward()
        for name, tensor in {"images": images, **{n: getattr(grid, n) for n in NAMES}}.items():
            assert tensor.grad.isfinite().all(), name

    @given(
        st.floats(-1e30, 1e30),
        st.floats(0, 1e3),
        st.floats(1e-3, 1e3),
        st.integers(1, 9),
        st.integers(1, 50),
    )
    def test_rows_sum_to_one_for_any_parameters(self, centre, delta, sigma, filters, pixels):
        bank = bank_of(centre, delta, sigma, filters=filters, pixels=pixels)
        assert_near(bank.sum(-1), torch.ones(filters))

    @given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 2), st.floats(0.3, 2))
    def test_windowed_equals_full_wherever_it_looks(self, c_x, c_y, delta, sigma):
        images = torch.rand(1, 1, 40, 64, generator=torch.Generator().manual_seed(0)).double()
        grid = grid_of((c_x, c_y, delta, delta, sigma, 1))
        part = read_glimpse(images, grid, 4, support=support_of(4, delta, sigma))
        assert_near(part, read_glimpse(images, grid, 4), atol=2e-4, rtol=0)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_black_images_are_seen_black_and_pull_nowhere(self, dtype):
        images = torch.zeros(2, 1, 30, 30, dtype=dtype)
        grid = random_grid(2, dtype).map(torch.Tensor.requires_grad_)
        seen = read_glimpse(images, grid, 5)
        seen.sum().backward()
        assert seen.abs().max() == 0
        assert all(p.grad.abs().max() == 0 for p in astuple(grid))

    def test_half_types_are_as_good_as_their_last_bit_on_a_large_image(self):
        """A centre in pixels would be off by 2 in float16 at 4,000; it is kept in float32."""
        images = torch.zeros(1, 1, 1, 4001, dtype=torch.float16)
        images[..., 3500] = 1
        grid = grid_of((0.75, 0, 1, 1, 0.3, 1), dtype=torch.float16)
        seen = read_glimpse(images, grid, 1, support=64)
        assert seen.item() == pytest.approx(1, abs=TOLERANCE[torch.float16]["atol"] + 0.01)


@pytest.mark.usefixtures("as_installed")
class TestBadInput:
    @pytest.mark.parametrize(
        ("images", "grid", "arguments", "message"),
        [
            ((1, 9, 9), 1, {}, "images must have shape (B, C, H, W) with B >= 1, got (1, 9, 9)"),
            (
                (0, 1, 9, 9),
                0,
                {},
                "images must have shape (B, C, H, W) with B >= 1, got (0, 1, 9, 9)",
            ),
            (
                (2, 1, 9, 9),
                3,
                {},
                "grid must have shape (2,) for images of shape (2, 1, 9, 9), got (3,)",
            ),
            ((2, 1, 9, 9), 2, {"size": 0}, "size must be at least 1, got 0"),
            ((2, 1, 9, 9), 2, {"support": 0}, "support must be at least 1, got 0"),
        ],
    )
    def test_read_refuses_and_says_why(self, images, grid, arguments, message):
        with pytest.raises(ValueError, match=re.escape(f"read_glimpse: {message}")):
            read_glimpse(torch.zeros(images), random_grid(grid), **{"size": 3, **arguments})

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
    def test_read_refuses_images_of_integers(self, dtype):
        """Weights between 0 and 1 would all become 0."""
        images = torch.ones(2, 1, 9, 9, dtype=dtype)
        with pytest.raises(
            TypeError, match=f"read_glimpse: images must be floating .* got {dtype}"
        ):
            read_glimpse(images, random_grid(2), 3)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"filters": 0, "pixels": 5}, "filters must be at least 1, got 0"),
            ({"filters": 3, "pixels": 0}, "pixels must be at least 1, got 0"),
        ],
    )
    def test_filterbank_refuses_and_says_why(self, arguments, message):
        with pytest.raises(ValueError, match=re.escape(f"gaussian_filterbank: {message}")):
            bank_of(3.0, 1.0, 1.0, **arguments)

    def test_filterbank_refuses_parameters_that_do_not_match(self):
        two, three = torch.ones(2), torch.ones(3)
        message = "centre, delta and sigma must have one shape (B,), got (2,), (3,), (2,)"
        with pytest.raises(ValueError, match=re.escape(f"gaussian_filterbank: {message}")):
            gaussian_filterbank(two, three, two, filters=2, pixels=5)


class TestSupportOf:
    def test_by_hand(self):
        """11 distances of 2, and 4 sigmas of 1.5 on each side, and a pixel for the rounding."""
        assert support_of(12, 2.0, 1.5) == 22 + 12 + 2

    def test_does_not_depend_on_the_image(self):
        assert "image" not in support_of.__code__.co_varnames
