"""Read, dim, read again; and what two reads say of a weak label."""

import numpy as np
import pytest
import torch
from oracles import draw_filterbank
from tolerances import assert_near

from ramlib.attention import Window
from ramlib.glimpse import GlimpseGrid, read_glimpse
from ramlib.labels import pair_label
from ramlib.model import RAMConfig
from ramlib.models.inhibition import (
    CloserLook,
    ReadAgainConfig,
    footprint,
)

READER = RAMConfig(glimpses=2, size=4, hidden=8, shrink=4, window=Window(0.5, 0.3, 0.9))


def grid_of(*parameters, dtype=torch.float64):
    return GlimpseGrid(*(torch.tensor([value], dtype=dtype) for value in parameters))


def chances(*shape):
    return torch.rand(*shape, 10, dtype=torch.float64).softmax(-1)


class TestFootprint:
    def test_matches_the_filters_mapped_back_one_by_one(self):
        seen = footprint(grid_of(0.2, -0.3, 2.0, 3.0, 2.5, 1.0), 4, (20, 24))[0]
        rows = 3.0 * draw_filterbank(9.5 * 0.7 + 1, 3.0, 2.5, 4, 20).sum(0)
        columns = 2.0 * draw_filterbank(11.5 * 1.2 + 1, 2.0, 2.5, 4, 24).sum(0)
        assert_near(seen, np.outer(rows.clip(max=1), columns.clip(max=1)))

    def test_is_one_within_the_window_and_nothing_far_from_it(self):
        seen = footprint(grid_of(0.0, 0.0, 2.0, 2.0, 1.0, 1.0), 12, (100, 100))[0]
        assert seen[45:55, 45:55].min() > 0.99
        assert seen[:25].max() < 1e-6
        assert seen[:, 75:].max() < 1e-6

    def test_has_the_area_of_the_window(self):
        seen = footprint(grid_of(0.0, 0.0, 2.0, 1.5, 1.0, 1.0), 12, (100, 100))
        assert_near(seen.sum(), 12 * 2.0 * 12 * 1.5, atol=0, rtol=0.05)

    def test_reach_spreads_it(self):
        grid = grid_of(0.0, 0.0, 2.0, 2.0, 1.0, 1.0)
        near, far = (footprint(grid, 12, (100, 100), reach=reach).sum() for reach in (1.0, 1.5))
        assert_near(far / near, 1.5**2, atol=0, rtol=0.05)

    def test_ignores_intensity(self):
        dim, bright = (
            footprint(grid_of(0.1, 0.2, 2.0, 2.0, 1.0, g), 6, (30, 30)) for g in (0.1, 9.0)
        )
        assert torch.equal(dim, bright)

    def test_stays_between_zero_and_one_however_dense_the_filters(self):
        seen = footprint(grid_of(0.9, -0.9, 0.1, 8.0, 0.2, 1.0), 12, (40, 40))
        assert seen.min() >= 0
        assert seen.max() <= 1

    def test_gradient_reaches_the_grid(self):
        parameters = [
            torch.tensor([value], dtype=torch.float64, requires_grad=True)
            for value in (0.13, -0.21, 1.7, 2.1, 1.4)
        ]
        one = torch.ones(1, dtype=torch.float64)

        def soft_sum(c_x, c_y, delta_x, delta_y, sigma):
            grid = GlimpseGrid(c_x, c_y, delta_x, delta_y, sigma, one)
            return footprint(grid, 3, (12, 12))[0, ::3, ::3]

        assert torch.autograd.gradcheck(soft_sum, parameters)


class TestReadAgainModel:
    def model(self, target="pair", **changes):
        classes = {"pair": 55, "sum": 19}[target]
        return ReadAgainConfig(READER, target, **changes).build((1, 30, 30), classes).eval()

    @pytest.mark.parametrize(("target", "classes"), [("pair", 55), ("sum", 19)])
    def test_rollout_holds_the_looks_of_both_reads(self, target, classes):
        rollout = self.model(target)(torch.rand(3, 1, 30, 30))
        assert rollout.logits.shape == (3, 4, classes)
        assert rollout.grids.shape == (3, 4)
        assert rollout.glimpses.shape == (3, 4, 1, 4, 4)

    def test_first_read_is_the_bare_reader(self):
        model, images = self.model(), torch.rand(2, 1, 30, 30)
        bare, rollout = model.reader(images), model(images)
        assert torch.equal(rollout.glimpses[:, :2], bare.glimpses)

    def test_second_read_sees_the_image_less_what_was_seen(self):
        model, images = self.model(), torch.rand(2, 1, 30, 30)
        first = model.reader(images)
        unseen = torch.ones(2, 30, 30)
        for t in range(2):
            unseen *= 1 - footprint(first.grids[:, t], 4, (30, 30), reach=model.reach.item())
        second = model.reader(images * unseen[:, None])
        assert_near(model(images).glimpses[:, 2:], second.glimpses)

    def test_before_the_second_read_its_digit_is_unknown(self):
        model, images = self.model("sum"), torch.rand(2, 1, 30, 30)
        first = model.reader(images).logits.softmax(-1)
        even = np.full(10, 0.1)
        expected = np.array(
            [[np.convolve(first[b, t].detach(), even) for t in range(2)] for b in range(2)]
        )
        assert_near(model(images).logits[:, :2].exp(), expected, torch.float32)

    def test_loss_is_the_likelihood_of_the_label_over_the_second_read(self):
        model, labels = self.model(), torch.tensor([3, 54])
        rollout = model(torch.rand(2, 1, 30, 30))
        chosen = [rollout.logits[b, t, labels[b]].item() for b in (0, 1) for t in (2, 3)]
        expected = -np.mean(chosen)
        assert_near(model.loss(rollout, labels), expected, torch.float32)

    def test_gradient_reaches_every_parameter(self):
        model = self.model().train()
        rollout = model(torch.rand(4, 1, 30, 30))
        model.loss(rollout, torch.tensor([0, 9, 20, 54])).backward()
        still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not still

    @pytest.mark.parametrize("target", ["pair", "sum"])
    def test_a_pair_named_at_once_is_a_mixture_with_the_two_reads(self, target):
        model, images = self.model(target, closer=6), torch.rand(3, 1, 30, 30)
        with torch.no_grad():
            model.closer.f_class[-1].bias[10:] = 0.5  # so that neither way drowns the other
            last = model(images).logits[:, -1].exp()
            first, words = model.read(images)
            dimmed = images * (1 - model.seen(first.grids)[:, None])
            two = model.read(dimmed)[1][:, :10].softmax(-1).numpy()
        one, heaps = words.softmax(-1).numpy()[:, :10], words.softmax(-1).numpy()[:, 10:]
        expected = np.zeros(last.shape)
        for i in range(10):
            for j in range(10):
                pair = pair_label(torch.tensor([i]), torch.tensor([j])).item()
                value = i + j if target == "sum" else pair
                expected[:, value] += one[:, i] * two[:, j]
                if i <= j:
                    expected[:, value] += heaps[:, pair]
        assert_near(last, expected, torch.float32)

    def test_closer_look_adds_to_what_the_read_says(self):
        model, images = self.model(closer=6), torch.rand(2, 1, 30, 30)
        looks = model.reader.looks(images)
        bare, added = model.reader.rollout(looks).logits, model.closer(images, looks[-1])
        rollout, words = model.read(images)
        assert torch.equal(rollout.logits[:, :-1], bare[:, :-1])
        assert_near(rollout.logits[:, -1], bare[:, -1] + added[:, :10], torch.float32)
        assert torch.equal(words[:, 10:], added[:, 10:])

    def test_without_a_closer_look_a_read_has_ten_words(self):
        model, images = self.model(), torch.rand(2, 1, 30, 30)
        rollout, words = model.read(images)
        assert torch.equal(words, rollout.logits[:, -1])
        assert words.shape == (2, 10)

    def test_gradient_reaches_the_closer_look(self):
        model = self.model(closer=6).train()
        model.objective(torch.rand(4, 1, 30, 30), torch.tensor([0, 9, 20, 54])).backward()
        assert all(p.grad.any() for p in model.closer.parameters())

    def test_frozen_leaves_the_closer_look_to_learn(self):
        model = self.model(closer=6, frozen=True).train()
        model.objective(torch.rand(4, 1, 30, 30), torch.tensor([0, 9, 20, 54])).backward()
        learns = {n for n, p in model.named_parameters() if p.grad is not None}
        assert learns == {n for n, _ in model.named_parameters() if n.startswith("closer.")}

    @pytest.mark.parametrize("target", ["pair", "sum"])
    def test_while_it_learns_alone_its_pairs_are_charged_too(self, target):
        model = self.model(target, closer=6, frozen=True)
        images, labels = torch.rand(2, 1, 30, 30), torch.tensor([3, 11])
        words = model.read(images)[1][:, 10:].softmax(-1).detach()
        chances = torch.zeros(2, 55 if target == "pair" else 19)
        for i in range(10):
            for j in range(i + 1):
                pair = pair_label(torch.tensor([i]), torch.tensor([j])).item()
                chances[:, pair if target == "pair" else i + j] += words[:, pair]
        named = -(chances[0, 3].log() + chances[1, 11].log()) / 2
        expected = model.loss(model(images), labels) + named
        assert_near(model.objective(images, labels), expected, torch.float32)

    def test_refuses_to_freeze_all_there_is(self, as_installed):
        with pytest.raises(ValueError, match="frozen leaves the closer look to learn"):
            self.model(frozen=True)

    def test_refuses_an_unknown_target(self, as_installed):
        with pytest.raises(ValueError, match="target must be one of pair, sum, got 'product'"):
            ReadAgainConfig(READER, "product").build((1, 30, 30), 55)


# ---- the closer look ----

IMAGES = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))


def last_look():
    torch.manual_seed(0)
    return READER.build((1, 40, 40), 10).looks(IMAGES)[-1]


def closer_look(**options):
    torch.manual_seed(1)
    return CloserLook((1, 40, 40), 6, READER.hidden, 65, **options)


def test_looks_where_the_read_ended_through_a_window_of_its_own():
    last = last_look().grid
    grid = closer_look(side=0.25).grid(last)
    assert torch.equal(grid.c_x, last.c_x)
    assert torch.equal(grid.c_y, last.c_y)
    # Six filters over a quarter of 39 pixels.
    assert_near(grid.delta_x, torch.full((3,), 39 / 4 / 5), torch.float32)
    assert_near(grid.sigma, grid.delta_y / 2, torch.float32)
    assert grid.gamma.tolist() == [1, 1, 1]


def test_scores_words_by_the_memory_and_by_what_it_sees():
    look, closer = last_look(), closer_look()
    delta = torch.full((3,), 0.4 * 39 / 5)
    grid = GlimpseGrid(look.grid.c_x, look.grid.c_y, delta, delta, delta / 2, torch.ones(3))
    glimpse = read_glimpse(IMAGES, grid, 6)
    expected = closer.f_class(torch.cat([look.state.h1, closer.f_glimpse(glimpse)], -1))
    scores = closer(IMAGES, look)
    assert scores.shape == (3, 65)
    assert_near(scores, expected, atol=1e-4, rtol=0)  # the support cuts the filters' tails


def test_gradient_reaches_the_last_window_and_the_memory():
    look, closer = last_look(), closer_look()
    c_x, memory = torch.autograd.grad(
        closer(IMAGES, look)[:, 3].sum(), (look.grid.c_x, look.state.h1)
    )
    assert c_x.abs().min() > 0
    assert memory.abs().max() > 0


@pytest.mark.parametrize(("size", "side", "rule"), [(1, 0.4, "size"), (6, 0.0, "side")])
def test_refuses_windows_that_see_nothing(size, side, rule, as_installed):
    with pytest.raises(ValueError, match=f"CloserLook: {rule} must be"):
        CloserLook((1, 40, 40), size, 8, 65, side=side)
