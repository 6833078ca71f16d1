"""The policy: where it may look, how large, and what noise and shift penalty do."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tolerances import assert_near
from torch.nn import functional as F

from ramlib.attention import (
    GAMMA,
    SHARPNESS,
    SIGMA_FLOOR,
    AttentionPolicy,
    Window,
    between,
    shift_penalty,
)
from ramlib.glimpse import GlimpseGrid, read_glimpse

BOUNDED = Window(0.35, 0.12, 0.5)
CENTRE_X, CENTRE_Y, DELTA_X, DELTA_Y, SIGMA, GAMMA_ROW = range(6)


def policy_of(window=BOUNDED, *, size=12, image_size=(100, 100), **arguments):
    return AttentionPolicy(8, size, image_size, window, **arguments).double()


def says(policy, rows):
    """Let the policy's map answer `rows` of six numbers: the hidden state picks the row."""
    answers = torch.tensor(rows, dtype=torch.float64)
    with torch.no_grad():
        policy.linear.weight.zero_()
        policy.linear.weight[:, : len(rows)] = answers.T
    return torch.eye(8, dtype=torch.float64)[: len(rows)]


def previous_at(c_x, c_y):
    one = torch.ones(len(c_x), dtype=torch.float64)
    centres = (torch.tensor(c, dtype=torch.float64) for c in (c_x, c_y))
    return GlimpseGrid(*centres, one, one, one, one)


class TestBetween:
    @given(st.floats(0.01, 0.99), st.floats(1e-3, 10), st.floats(1.01, 1e3))
    def test_is_start_at_zero(self, share, low, ratio):
        start = low * ratio**share
        value = between(torch.zeros(1, dtype=torch.float64), low, start, low * ratio)
        assert value.item() == pytest.approx(start, rel=1e-9)

    @given(st.floats(-1e30, 1e30))
    def test_never_leaves_its_limits(self, raw):
        value = between(torch.tensor(raw, dtype=torch.float64), 0.12, 0.35, 0.5).item()
        assert 0.12 * (1 - 1e-12) <= value <= 0.5 * (1 + 1e-12)

    def test_reaches_both_limits_and_rises_between(self):
        raw = torch.linspace(-30, 30, 200, dtype=torch.float64)
        values = between(raw, 0.12, 0.35, 0.5)
        assert (values.diff() > 0).all()
        assert_near(values[[0, -1]], [0.12, 0.5], atol=1e-9, rtol=0)

    def test_is_a_sigmoid_of_the_logarithm(self):
        """At raw = 2 from the geometric middle: low (high / low)^sigmoid(2)."""
        value = between(torch.tensor(2.0, dtype=torch.float64), 1.0, 10.0, 100.0)
        assert value.item() == pytest.approx(100 ** (1 / (1 + math.exp(-2))))

    def test_without_limits_is_draws_exponential(self):
        raw = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
        expected = [0.35 * math.exp(-1), 0.35, 0.35 * math.exp(2)]
        assert_near(between(raw, None, 0.35, None), expected)


class TestWindow:
    def test_refuses_a_start_of_nothing(self):
        with pytest.raises(ValueError, match="Window: start must be above 0, got 0"):
            Window(0.0)

    @pytest.mark.parametrize("limits", [{"smallest": 0.1}, {"largest": 0.5}])
    def test_refuses_one_limit_without_the_other(self, limits):
        with pytest.raises(ValueError, match="Window: give both limits or neither"):
            Window(0.3, **limits)

    @pytest.mark.parametrize(
        ("start", "smallest", "largest"),
        [(0.3, 0.3, 0.5), (0.3, 0.1, 0.3), (0.3, 0.5, 0.1), (0.3, -0.1, 0.5), (0.9, 0.1, 0.5)],
    )
    def test_refuses_limits_that_do_not_hold_the_start(self, start, smallest, largest):
        message = f"0 < smallest < start < largest must hold, got {smallest}, {start}, {largest}"
        with pytest.raises(ValueError, match=re.escape(message)):
            Window(start, smallest, largest)


class TestFirstGlimpse:
    @pytest.mark.parametrize("window", [BOUNDED, Window(0.6)], ids=["bounded", "unbounded"])
    @pytest.mark.parametrize("relative", [False, True])
    def test_starts_in_the_middle_with_the_window_that_was_asked_for(self, window, relative):
        policy = policy_of(window, relative=relative)
        grid, shift = policy(torch.zeros(3, 8, dtype=torch.float64))
        delta = window.start * 99 / 11
        expected = (0, 0, delta, delta, 0.5 * delta + 0.3, 1)
        for value, number in zip(vars(grid).values(), expected, strict=True):
            assert_near(value, torch.full((3,), float(number), dtype=torch.float64))
        assert shift.abs().max() == 0

    def test_an_untrained_policy_looks_near_the_middle_at_every_state(self):
        h2 = torch.rand(64, 8, dtype=torch.float64) * 2 - 1
        grid, _ = policy_of()(h2)
        assert grid.c_x.abs().max() < 0.3
        assert 0 < grid.c_x.std() < 0.2
        assert (grid.delta_x / (0.35 * 9) - 1).abs().max() < 0.2

    def test_full_delta_spans_the_longer_side_as_in_draw(self):
        """Eq. 24, Gregor et al. (2015): (max(A, B) - 1) / (N - 1)."""
        policy = policy_of(Window(1.0), size=5, image_size=(33, 21))
        grid, _ = policy(torch.zeros(1, 8, dtype=torch.float64))
        assert grid.delta_x.item() == grid.delta_y.item() == pytest.approx(8)


class TestCentre:
    def test_absolute_centres_are_a_tanh(self):
        policy = policy_of()
        h2 = says(policy, [(0.5, -1, 0, 0, 0, 0), (-9, 9, 0, 0, 0, 0)])
        grid, shift = policy(h2, previous_at([0.9, -0.9], [0.1, 0.2]))
        assert_near(grid.c_x, [math.tanh(0.5), math.tanh(-9)])
        assert_near(grid.c_y, [math.tanh(-1), math.tanh(9)])
        assert_near(shift[:, 0], [math.tanh(0.5) - 0.9, math.tanh(-9) + 0.9])
        assert_near(shift[:, 1], [math.tanh(-1) - 0.1, math.tanh(9) - 0.2])

    def test_relative_shifts_are_added_to_the_last_centre(self):
        policy = policy_of(relative=True)
        h2 = says(policy, [(0.1, -0.2, 0, 0, 0, 0)])
        grid, shift = policy(h2, previous_at([0.3], [-0.1]))
        moves = [2 * math.tanh(0.1), 2 * math.tanh(-0.2)]
        assert_near(shift[0], moves)
        assert_near(torch.cat([grid.c_x, grid.c_y]), [0.3 + moves[0], -0.1 + moves[1]])

    def test_relative_shifts_stop_at_the_border(self):
        """From one side the window can reach the other, and it never leaves the image."""
        policy = policy_of(relative=True)
        h2 = says(policy, [(9, -9, 0, 0, 0, 0)])
        grid, shift = policy(h2, previous_at([-1.0], [0.5]))
        assert_near(torch.cat([grid.c_x, grid.c_y]), [1, -1], atol=1e-6, rtol=0)
        assert_near(shift[0], [2, -1.5], atol=1e-6, rtol=0)

    @pytest.mark.parametrize("relative", [False, True])
    @given(raw=st.floats(-1e30, 1e30), last=st.floats(-1, 1))
    def test_never_leaves_the_image(self, relative, raw, last):
        policy = policy_of(relative=relative, alpha=0.1)
        grid, _ = policy(says(policy, [(raw,) * 6]), previous_at([last], [-last]), noisy=True)
        assert grid.c_x.abs().item() <= 1
        assert grid.c_y.abs().item() <= 1


class TestSize:
    @given(st.lists(st.floats(-1e30, 1e30), min_size=6, max_size=6))
    def test_parameters_keep_their_limits_for_any_answer(self, raw):
        policy = policy_of()
        grid, _ = policy(says(policy, [raw]))
        near = 1 + 1e-9
        for delta in (grid.delta_x.item(), grid.delta_y.item()):
            assert 0.12 * 9 / near <= delta <= 0.5 * 9 * near
        mean = math.sqrt(grid.delta_x.item() * grid.delta_y.item())
        sharpness = (grid.sigma.item() - SIGMA_FLOOR) / mean
        assert SHARPNESS[0] / near <= sharpness <= SHARPNESS[2] * near
        assert GAMMA[0] / near <= grid.gamma.item() <= GAMMA[2] * near

    def test_each_answer_moves_its_own_parameter(self):
        """Eq. 21, Gregor et al. (2015), with a distance for each axis."""
        policy = policy_of(Window(0.35))
        h2 = says(policy, [[1.0 * (row == i) for i in range(6)] for row in range(6)])
        grid, _ = policy(h2)
        e, delta = math.e, 0.35 * 9
        for name, row, value, rest in [
            ("c_x", CENTRE_X, math.tanh(1), 0),
            ("c_y", CENTRE_Y, math.tanh(1), 0),
            ("delta_x", DELTA_X, e * delta, delta),
            ("delta_y", DELTA_Y, e * delta, delta),
            ("gamma", GAMMA_ROW, 0.25 * 16 ** (1 / (1 + 1 / e)), 1),
        ]:
            expected = torch.full((6,), float(rest), dtype=torch.float64)
            expected[row] = value
            assert_near(getattr(grid, name), expected)
        assert grid.sigma[SIGMA] > grid.sigma[CENTRE_X]
        assert_near(grid.sigma[DELTA_X], 0.5 * math.sqrt(e) * delta + 0.3)

    def test_gradient_reaches_every_answer(self):
        policy = policy_of(relative=True)
        grid, shift = policy(torch.rand(4, 8, dtype=torch.float64), previous_at([0] * 4, [0] * 4))
        (torch.stack(list(vars(grid).values())).sum() + shift.sum()).backward()
        assert (policy.linear.weight.grad.abs() > 0).all()


class TestSupport:
    def test_unbounded_windows_have_none(self):
        assert policy_of(Window(0.35)).support is None

    @pytest.mark.parametrize("alpha", [0.0, 0.3])
    def test_holds_the_largest_window_there_is(self, alpha):
        """With all limits reached and noise on top, the windowed read is still the full one."""
        policy = policy_of(Window(0.1, 0.05, 0.2), image_size=(120, 160), alpha=alpha)
        h2 = says(policy, [(0, 0, 50, 50, 50, 0), (-9, 9, 50, 50, 50, 0), (2, 1, 50, 50, 50, 0)])
        grid, _ = policy(h2, noisy=True)
        images = torch.rand(3, 1, 120, 160, dtype=torch.float64)
        assert 2 * policy.support**2 <= 120 * 160  # or the image would be read in place
        part = read_glimpse(images, grid, 12, support=policy.support)
        assert_near(part, read_glimpse(images, grid, 12), atol=2e-4, rtol=0)


class TestNoise:
    def test_is_off_unless_asked_for(self):
        policy, h2 = policy_of(alpha=0.1), torch.rand(5, 8, dtype=torch.float64)
        quiet, _ = policy(h2)
        plain, _ = policy(h2, noisy=False)
        assert all(map(torch.equal, vars(quiet).values(), vars(plain).values()))

    def test_alpha_zero_is_no_noise(self):
        policy, h2 = policy_of(alpha=0.0), torch.rand(5, 8, dtype=torch.float64)
        quiet, _ = policy(h2)
        noisy, _ = policy(h2, noisy=True)
        assert all(map(torch.equal, vars(quiet).values(), vars(noisy).values()))

    def test_is_uniform_and_independent_for_each_parameter(self):
        """Added to centres, multiplied into distances; four draws for every image."""
        policy = policy_of(alpha=0.2)
        h2 = says(policy, [(0.1, -0.1, 0.3, -0.3, 0, 0)]).expand(4000, -1)
        quiet, _ = policy(h2)
        noisy, _ = policy(h2, noisy=True)
        noise = torch.stack(
            [
                noisy.c_x - quiet.c_x,
                noisy.c_y - quiet.c_y,
                noisy.delta_x / quiet.delta_x - 1,
                noisy.delta_y / quiet.delta_y - 1,
            ]
        ).detach()
        assert noise.abs().max() <= 0.2 + 1e-9
        assert_near(noise.mean(1), torch.zeros(4), atol=0.008, rtol=0)  # 4 standard deviations
        assert_near(noise.var(1), torch.full((4,), 0.2**2 / 3), atol=8e-4, rtol=0)
        assert (torch.corrcoef(noise) - torch.eye(4)).abs().max() < 0.065
        for one in noise:
            assert torch.histc(one, 4, -0.2, 0.2).min() > 1000 - 4 * 28

    def test_sigma_follows_the_noisy_distances(self):
        policy = policy_of(alpha=0.1)
        grid, _ = policy(torch.zeros(50, 8, dtype=torch.float64), noisy=True)
        assert_near(grid.sigma, 0.5 * (grid.delta_x * grid.delta_y).sqrt().detach() + 0.3)

    def test_shift_is_the_one_before_the_noise(self):
        policy = policy_of(alpha=0.1)
        h2 = says(policy, [(0.2, 0.3, 0, 0, 0, 0)])
        _, shift = policy(h2, noisy=True)
        assert_near(shift[0], [math.tanh(0.2), math.tanh(0.3)])


class TestGradientLimit:
    ROWS = ((0.2, 0.1, 0, 0, 0, 0), (-0.4, 0.3, 0.1, 0, 0, 0), (0, 0, 0, 0, 0, 0))
    # Image by image: far above the limit, below it, and no gradient at all.
    LOUDNESS = torch.tensor([1e4, 1e-3, 0.0], dtype=torch.float64)

    def gradients(self, limit):
        """Of a batch's mean loss, one row for each image: each drives a feature of its own."""
        policy = policy_of(gradient_limit=limit)
        grid, _ = policy(says(policy, self.ROWS))
        (self.LOUDNESS * (grid.c_x + 2 * grid.c_y + grid.delta_x.log())).mean().backward()
        return policy.linear.weight.grad.T[:3]

    def test_caps_the_loud_keeps_the_quiet_and_every_direction(self):
        free, limited = self.gradients(None), self.gradients(0.5)
        assert limited[0].norm().item() == pytest.approx(0.5 / 3)
        assert F.cosine_similarity(limited[0], free[0], 0).item() == pytest.approx(1)
        assert_near(limited[1:], free[1:])
        assert free[0].norm() > 1e3

    def test_changes_no_grid(self):
        policy, limited = policy_of(), policy_of(gradient_limit=0.1)
        grids = [p(says(p, self.ROWS))[0] for p in (policy, limited)]
        for ours, theirs in zip(vars(grids[0]).values(), vars(grids[1]).values(), strict=True):
            assert torch.equal(ours, theirs)


class TestPrecision:
    def test_places_the_grid_in_single_precision_under_autocast(self):
        policy = AttentionPolicy(8, 12, (100, 100), BOUNDED)
        h2 = torch.randn(16, 8).bfloat16()
        plain, _ = policy(h2.float())
        with torch.autocast("cpu", torch.bfloat16):
            mixed, shift = policy(h2)
        assert shift.dtype == torch.float32
        for ours, theirs in zip(vars(mixed).values(), vars(plain).values(), strict=True):
            assert ours.dtype == torch.float32
            assert torch.equal(ours, theirs)


class TestBadInput:
    def test_refuses_a_glimpse_of_one_filter(self):
        with pytest.raises(ValueError, match="AttentionPolicy: size must be at least 2, got 1"):
            AttentionPolicy(8, 1, (20, 20))

    def test_refuses_negative_noise(self):
        with pytest.raises(
            ValueError, match=r"AttentionPolicy: alpha must be at least 0, got -0\.1"
        ):
            AttentionPolicy(8, 4, (20, 20), alpha=-0.1)

    def test_refuses_a_limit_that_lets_no_gradient_through(self):
        with pytest.raises(ValueError, match="gradient_limit must be above 0 or None, got 0"):
            AttentionPolicy(8, 4, (20, 20), gradient_limit=0.0)


class TestShiftPenalty:
    def test_by_hand(self):
        """Eq. 5 with a = b = 0.1: 0.1 at rest, 0.1 / e at a squared distance of 0.1."""
        shift = torch.tensor([[0, 0], [math.sqrt(0.1), 0], [0.6, 0.8]], dtype=torch.float64)
        expected = [0.1, 0.1 / math.e, 0.1 * math.exp(-10)]
        assert_near(shift_penalty(shift), expected)

    def test_height_and_width_are_a_and_b(self):
        shift = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
        assert_near(shift_penalty(shift, a=3.0, b=4.0), [3 / math.e])

    def test_gradcheck_and_pushes_away_from_rest(self):
        shift = torch.tensor([[0.1, -0.2], [0.0, 0.3]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(shift_penalty, (shift,))
        shift_penalty(shift).sum().backward()
        assert F.cosine_similarity(shift.grad, shift.detach()).tolist() == pytest.approx([-1, -1])
